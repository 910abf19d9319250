"""A world on loopback: a real HAProxy, real backends, a real etcd, and clients that count what fails."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import os
import signal
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

from coupler.registrator.balancers.haproxy.adapter import HAProxy
from coupler.registrator.balancers.haproxy.config import Settings
from coupler.registrator.balancers.haproxy.files import Files, MasterReload, SpawnReload
from coupler.registrator.balancers.haproxy.socket import RuntimeSocket

if TYPE_CHECKING:
    from collections.abc import Callable

DEADLINE = 15.0


def free_port() -> int:
    """Return a port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(what: Callable[[], bool], why: str) -> None:
    """Wait until `what` holds; fail with `why` at the deadline."""
    deadline = time.monotonic() + DEADLINE
    while not what():
        assert time.monotonic() < deadline, why
        time.sleep(0.01)


class App(http.server.ThreadingHTTPServer):
    """One instance: answers every request with its name, after `delay` seconds; /health with `health`."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, name: str, port: int = 0) -> None:
        self.app_name, self.delay, self.health, self.served = name, 0.0, 200, 0
        super().__init__(("127.0.0.1", port), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        """Let a connection that HAProxy or a client resets end in silence."""

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: App

    def do_GET(self) -> None:
        app = self.server
        health = self.path == "/health"
        app.served += not health
        time.sleep(0 if health else app.delay)
        body = app.app_name.encode()
        self.send_response(app.health if health else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@dataclass
class Balancer:
    """A HAProxy of one test, with a foreign backend of two servers in the user's own file."""

    folder: Path
    foreign: tuple[App, App]
    master: bool = False
    port: int = field(default_factory=free_port)
    foreign_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def base(self) -> Path:
        return self.folder / "base.cfg"

    @property
    def config(self) -> Path:
        return self.folder / "coupler.cfg"

    @property
    def socket(self) -> Path:
        return self.folder / "haproxy.sock"

    @property
    def master_socket(self) -> Path:
        return self.folder / "master.sock"

    def settings(self) -> Settings:
        return Settings(self.config, (f"127.0.0.1:{self.port}",), "127.0.0.1")

    def adapter(self, binds: tuple[str, ...] = (), patience: float = 10.0) -> HAProxy:
        files = (self.base, self.config)
        reload = MasterReload(self.master_socket) if self.master else SpawnReload("haproxy", files, self.socket)
        socket = RuntimeSocket(self.socket)
        written = Files(self.config, (self.base,), "haproxy")
        settings = replace(self.settings(), binds=binds or self.settings().binds)
        return HAProxy(settings, socket, written, reload, reload_interval=0.0, patience=patience)

    def write_base(self) -> None:
        servers = "".join(f"  server theirs-{n} 127.0.0.1:{app.port}\n" for n, app in enumerate(self.foreign))
        self.base.write_text(
            f"global\n  stats socket {self.socket} mode 600 level admin expose-fd listeners\n  maxconn 500\n"
            "  hard-stop-after 20s\n"
            "defaults\n  mode http\n  timeout connect 2s\n  timeout client 20s\n  timeout server 20s\n"
            "  timeout http-keep-alive 5s\n  option idle-close-on-response\n"
            f"frontend theirs\n  bind 127.0.0.1:{self.foreign_port}\n  default_backend theirs\n"
            f"backend theirs\n  balance roundrobin\n{servers}"
        )

    def start(self) -> None:
        master = ["-W", "-S", str(self.master_socket)] if self.master else ["-db"]
        argv = ["haproxy", *master, "-f", str(self.base), "-f", str(self.config)]
        with (self.folder / "haproxy.log").open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
        eventually(lambda: self.pid() is not None, "HAProxy does not start")

    def ask(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(DEADLINE)
            client.connect(str(self.socket))
            client.sendall(command.encode() + b"\n")
            return b"".join(iter(lambda: client.recv(65536), b"")).decode()

    def pid(self) -> int | None:
        with contextlib.suppress(OSError):
            for line in self.ask("show info").splitlines():
                if line.startswith("Pid: "):
                    return int(line[5:])
        return None

    def pids(self) -> list[int]:
        """Every process that works on this test's files, the detached ones too."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and str(self.base).encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found

    def kill(self) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
        eventually(lambda: self.pids() == [], "HAProxy does not end")

    def servers(self) -> dict[str, list[str]]:
        """Return names of servers by backend."""
        found: dict[str, list[str]] = {}
        for line in self.ask("show servers state").splitlines():
            words = line.split()
            if len(words) > 18 and words[0] != "#":
                found.setdefault(words[1], []).append(words[3])
        return found

    def get(self, path: str = "/", host: str = "shop.test", port: int = 0, **headers: str) -> tuple[int, str]:
        """Return status and body of one request on a connection of its own."""
        connection = HTTPConnection("127.0.0.1", port or self.port, timeout=DEADLINE)
        try:
            connection.request("GET", path, headers={"Host": host} | headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def answers(self) -> tuple[int, str] | None:
        """Return what a request brings, None for no answer."""
        with contextlib.suppress(OSError, HTTPException):
            return self.get()
        return None


class Load:
    """Clients that ask without pause; what is no 200 is a failure, with its reason."""

    def __init__(self, balancer: Balancer, clients: int = 3, port: int = 0) -> None:
        self._balancer, self._port = balancer, port or balancer.port
        self._stop = threading.Event()
        self.failures: list[str] = []
        self.answers: dict[str, int] = {}
        self._count = itertools.count()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(n % 2 == 0,)) for n in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        self.more(20)
        return self

    def __exit__(self, *args: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def requests(self) -> int:
        return sum(self.answers.values()) + len(self.failures)

    def more(self, requests: int = 60) -> None:
        """Wait until as many more requests are through."""
        target = self.requests + requests
        eventually(lambda: self.requests >= target, "the load stands still")

    def _run(self, keep: bool) -> None:
        connection = None
        while not self._stop.is_set():
            connection = connection or HTTPConnection("127.0.0.1", self._port, timeout=DEADLINE)
            closes = True
            try:
                connection.request("GET", f"/{next(self._count)}", headers={"Host": "shop.test"})
                answer = connection.getresponse()
                body = answer.read().decode()
                closes = not keep or answer.will_close
                self._note(body if answer.status == 200 else None, f"{answer.status}: {body[:80]}")
            except (OSError, HTTPException) as error:
                self._note(None, repr(error))
            if closes:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def _note(self, name: str | None, otherwise: str) -> None:
        with self._lock:
            if name is None:
                self.failures.append(otherwise)
            else:
                self.answers[name] = self.answers.get(name, 0) + 1


class Etcd:
    """A real etcd that may be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self._peer = folder, free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        peer = f"http://127.0.0.1:{self._peer}"
        argv = ["etcd", "--name", "one", "--data-dir", str(self.folder / "data"), "--log-level", "error"]
        argv += ["--listen-client-urls", self.url, "--advertise-client-urls", self.url, "--listen-peer-urls", peer]
        argv += ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"one={peer}", "--unsafe-no-fsync"]
        if "unsafe" not in subprocess.run(["etcd", "--help"], capture_output=True, text=True, check=False).stdout:
            argv.remove("--unsafe-no-fsync")
        with (self.folder / "etcd.log").open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log)
        eventually(lambda: self.ctl("endpoint", "health", check=False).returncode == 0, "etcd does not start")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def ctl(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        argv = ["etcdctl", "--endpoints", self.url, "--command-timeout=5s", *words]
        environment = os.environ | {"ETCDCTL_API": "3"}
        return subprocess.run(argv, capture_output=True, text=True, check=check, env=environment)

    def put(self, key: str, value: str, *words: str) -> None:
        self.ctl("put", key, value, *words)
