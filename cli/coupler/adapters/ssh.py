"""Our own short conversations with nodes over SSH, with paramiko. Ansible, which does the work, uses OpenSSH.

A connection is opened once for a node and kept for the next question. Host keys are always verified: against the
cluster's known_hosts and the user's own; an unknown key is accepted once, and remembered, where `host_keys` is
`accept-new` (the meaning that OpenSSH's StrictHostKeyChecking gives the word).
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import paramiko

from coupler.errors import CouplerError, HostFailedError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

_CONNECT_TIMEOUT = 10  # seconds

# paramiko prints tracebacks of what it also raises, and what it raises is explained here.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False
_MOST_AT_ONCE = 50


@dataclass(frozen=True)
class Target:
    """Where and as whom to log in."""

    name: str
    address: str
    port: int
    user: str

    @property
    def key_name(self) -> str:
        """How known_hosts names this host."""
        return self.address if self.port == paramiko.config.SSH_PORT else f"[{self.address}]:{self.port}"


@dataclass(frozen=True)
class Access:
    """How to log in: the private key (None: ssh-agent and the user's own keys), and whose host keys are known."""

    known_hosts: Path
    private_key: Path | None = None
    more_known_hosts: tuple[Path, ...] = ()
    accept_new: bool = True


@dataclass(frozen=True)
class Completed:
    """What a script on a node came to."""

    exit_status: int
    stdout: str
    stderr: str


class Connections:
    """Connections to nodes, opened when first needed and closed together."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._clients: dict[Target, paramiko.SSHClient] = {}
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> Connections:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, target: Target, script: str, timeout: float = 60, sudo: bool = True) -> Completed:
        """Run a POSIX shell script on a node, as root unless `sudo` is False.

        Raises:
            UnreachableError: the host does not answer, or stopped answering within `timeout` seconds.
            HostFailedError: it answered, and refused us or is not the host that we know.
        """
        client = self._client(target)
        command = "sudo -n sh -s" if sudo and target.user != "root" else "sh -s"
        try:
            stdin, stdout, stderr = client.exec_command(command, timeout=timeout)
            stdin.write(script)
            stdin.channel.shutdown_write()
            output, errors = stdout.read(), stderr.read()
            status = stdout.channel.recv_exit_status()
        except (OSError, EOFError, paramiko.SSHException) as error:
            cause = f"no answer within {timeout:.0f} s" if isinstance(error, TimeoutError) else str(error)
            raise self._broken(target, cause or type(error).__name__) from error
        if status < 0:
            raise self._broken(target, "it was closed before the script had ended")
        return Completed(status, output.decode(errors="replace"), errors.decode(errors="replace"))

    def _broken(self, target: Target, cause: str) -> BaseException:
        """Return what to raise for a connection that broke: no news of the node if it was we who closed it."""
        self.forget(target)
        if self._closed:
            return KeyboardInterrupt()
        return UnreachableError("the SSH connection broke", why=cause, host=target.name)

    def forget(self, target: Target) -> None:
        """Close the connection to a node; the next question opens a new one."""
        with self._lock:
            client = self._clients.pop(target, None)
        if client:
            client.close()

    def everywhere(self, targets: Iterable[Target], ask: Callable[[Target], None]) -> None:
        """Call `ask` for every target, many at a time. `ask` deals with its own errors.

        An interrupt closes every connection and waits for nobody: a thread that is still trying to reach its node
        ends with the process.
        """
        waiting: SimpleQueue[Target] = SimpleQueue()
        ended: SimpleQueue[BaseException | None] = SimpleQueue()
        for target in targets:
            waiting.put(target)

        def work() -> None:
            with contextlib.suppress(Empty):
                while True:
                    target = waiting.get_nowait()
                    try:
                        ask(target)
                    except BaseException as error:  # noqa: BLE001 - raised again where the results are counted
                        ended.put(error)
                    else:
                        ended.put(None)

        total = waiting.qsize()
        for _ in range(min(_MOST_AT_ONCE, total)):
            threading.Thread(target=work, daemon=True).start()
        try:
            for _ in range(total):
                if error := ended.get():
                    raise error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close every connection."""
        self._closed = True
        with self._lock:
            clients = list(self._clients.values())
            self._clients.clear()
        for client in clients:
            client.close()

    def _client(self, target: Target) -> paramiko.SSHClient:
        with self._lock:
            client = self._clients.get(target)
        if client and (transport := client.get_transport()) and transport.is_active():
            return client
        client = self._connect(target)
        with self._lock:
            self._clients[target] = client
        return client

    def _connect(self, target: Target) -> paramiko.SSHClient:
        client = paramiko.SSHClient()
        for path in (*self._access.more_known_hosts, Path("~/.ssh/known_hosts").expanduser()):
            if path.exists():
                client.load_system_host_keys(str(path))
        if self._access.known_hosts.exists():
            client.load_host_keys(str(self._access.known_hosts))
        client.set_missing_host_key_policy(_Remember(self._access, self._lock))
        try:
            client.connect(
                target.address,
                port=target.port,
                username=target.user,
                key_filename=str(self._access.private_key) if self._access.private_key else None,
                allow_agent=self._access.private_key is None,
                look_for_keys=self._access.private_key is None,
                timeout=_CONNECT_TIMEOUT,
                banner_timeout=_CONNECT_TIMEOUT,
                auth_timeout=_CONNECT_TIMEOUT,
            )
        except Exception as error:
            client.close()
            raise _explained(error, target, self._access) from error
        return client


class _Remember(paramiko.MissingHostKeyPolicy):
    """Accept a host key that nobody knows yet, and write it down; or refuse it."""

    def __init__(self, access: Access, lock: threading.Lock) -> None:
        self._access = access
        self._lock = lock

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:  # noqa: ARG002
        """Decide about the key `key` of `hostname`."""
        if not self._access.accept_new:
            raise _UnknownHostKey(key)
        line = f"{hostname} {key.get_name()} {key.get_base64()}\n"
        with self._lock:
            self._access.known_hosts.parent.mkdir(parents=True, exist_ok=True)
            with self._access.known_hosts.open("a", encoding="utf-8") as known:
                known.write(line)


class _UnknownHostKey(paramiko.SSHException):
    def __init__(self, key: paramiko.PKey) -> None:
        super().__init__("unknown host key")
        self.key = key


def _explained(error: Exception, target: Target, access: Access) -> CouplerError:
    """Return the error as a person understands it: what, why, and what to do."""
    where = f"{target.user}@{target.address}:{target.port}"
    if isinstance(error, paramiko.BadHostKeyException):
        return HostFailedError(
            f"the host key of {target.address} has changed",
            why=f"known is {error.expected_key.fingerprint}, presented is {error.key.fingerprint}: "
            "the machine was installed again, or another one answers at this address",
            next_step=f"if you know why: ssh-keygen -R '{target.key_name}' -f {_file_that_knows(target, access)}",
            host=target.name,
        )
    if isinstance(error, _UnknownHostKey):
        return HostFailedError(
            f"the host key of {target.address} is not known",
            why=f"it presents {error.key.fingerprint}, and ssh.host_keys is strict",
            next_step=f"verify it and add it: ssh-keyscan -p {target.port} {target.address} >> {access.known_hosts}",
            host=target.name,
        )
    if isinstance(error, paramiko.AuthenticationException):
        key = f"the key {access.private_key}" if access.private_key else "no key of ssh-agent or ~/.ssh"
        return HostFailedError(
            f"{where} does not let us in",
            why=f"{key} was {'not ' if access.private_key else ''}accepted",
            next_step="put the public key into the machine's authorized_keys, or name the right one in ssh.private_key",
            host=target.name,
        )
    if isinstance(error, OSError) and not isinstance(error, paramiko.SSHException) and _is_key_problem(error):
        return CouplerError(f"the private key {access.private_key} cannot be read", why=str(error))
    cause = str(error) or type(error).__name__
    if isinstance(error, TimeoutError | socket.timeout):
        cause = f"no answer within {_CONNECT_TIMEOUT} s"
    elif isinstance(error, paramiko.ssh_exception.NoValidConnectionsError):
        cause = "; ".join(sorted({str(single) for single in error.errors.values()}))
    return UnreachableError(
        f"{where} cannot be reached",
        why=cause,
        next_step="check that the machine is up and the address right, then run the same command again",
        host=target.name,
    )


def _file_that_knows(target: Target, access: Access) -> Path:
    """Return which of the files of known hosts has a key of this host."""
    files = (*access.more_known_hosts, Path("~/.ssh/known_hosts").expanduser())
    known = (path for path in files if path.exists() and paramiko.HostKeys(str(path)).lookup(target.key_name))
    return next(known, access.known_hosts)


def _is_key_problem(error: OSError) -> bool:
    return isinstance(error, FileNotFoundError | PermissionError) and error.filename is not None
