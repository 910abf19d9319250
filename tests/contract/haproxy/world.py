"""A real HAProxy on loopback, beside a foreign site."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection, HTTPException
from http.cookies import SimpleCookie
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.contract.traffic import DEADLINE, App, eventually, free_port

from coupler.registrator.balancers.haproxy.adapter import HAProxy
from coupler.registrator.balancers.haproxy.config import Settings
from coupler.registrator.balancers.haproxy.files import Files
from coupler.registrator.balancers.haproxy.reload import MasterReload, SpawnReload
from coupler.registrator.balancers.haproxy.socket import RuntimeSocket

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Balancer:
    """A HAProxy of one test, with a foreign backend of two servers in the user's own file."""

    folder: Path
    foreign: tuple[App, App]
    master: bool = False
    tls: bool = False
    port: int = field(default_factory=free_port)
    foreign_port: int = field(default_factory=free_port)
    tls_port: int = field(default_factory=free_port)
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
        tls = (f"127.0.0.1:{self.tls_port}",) if self.tls else ()
        return Settings(self.config, (f"127.0.0.1:{self.port}",), "127.0.0.1", tls)

    def adapter(self, clock: Callable[[], float] = time.monotonic, **settings: Any) -> HAProxy:
        interval, patience = settings.pop("interval", 0.0), settings.pop("patience", 10.0)
        files = (self.base, self.config)
        reload = MasterReload(self.master_socket) if self.master else SpawnReload("haproxy", files, self.socket)
        socket = RuntimeSocket(self.socket)
        written = Files(self.config, (self.base,), "haproxy")
        changed = replace(self.settings(), **settings)
        return HAProxy(changed, socket, written, reload, reload_interval=interval, patience=patience, clock=clock)

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

    def succeed(self) -> None:
        """Start a successor by hand, as a service without a master does."""
        argv = ["haproxy", "-f", str(self.base), "-f", str(self.config), "-D", "-x", str(self.socket)]
        with (self.folder / "haproxy.log").open("ab") as log:
            subprocess.run([*argv, "-sf", str(self.pid())], stdout=log, stderr=log, check=True)

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

    def cookie(self, name: str) -> tuple[str, str]:
        """Return the body of one answer, and the cookie that came with it."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            connection.request("GET", "/", headers={"Host": "shop.test"})
            answer = connection.getresponse()
            morsel = SimpleCookie(answer.getheader("Set-Cookie"))[name]
            return answer.read().decode(), morsel.value
        finally:
            connection.close()

    def answers(self) -> tuple[int, str] | None:
        """Return what a request brings, None for no answer."""
        with contextlib.suppress(OSError, HTTPException):
            return self.get()
        return None
