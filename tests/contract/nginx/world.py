"""A real nginx on loopback, beside a foreign site, and instances that say what they were asked."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import os
import signal
import socket
import ssl
import subprocess
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import TYPE_CHECKING, Any

from cryptography import x509
from tests.contract.traffic import DEADLINE, App, Instance, Load, eventually, free_port

from coupler.registrator.balancers.nginx import process
from coupler.registrator.balancers.nginx.adapter import Nginx
from coupler.registrator.balancers.nginx.config import NginxSettings
from coupler.registrator.model import Desired

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NEVER_SENT = (ConnectionResetError, BrokenPipeError, ConnectionAbortedError)


@dataclass
class Balancer:
    """An nginx of one test, with a foreign site in a file that the main one includes by a relative path."""

    folder: Path
    foreign: tuple[App, App]
    accept_proxy: bool = False
    port: int = field(default_factory=free_port)
    tls_port: int = field(default_factory=free_port)
    foreign_port: int = field(default_factory=free_port)
    status_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def main(self) -> Path:
        return self.folder / "nginx.conf"

    def settings(self) -> NginxSettings:
        return NginxSettings(
            self.folder / "ours",
            self.main,
            self.folder / "nginx.pid",
            (f"127.0.0.1:{self.port}",),
            (f"127.0.0.1:{self.tls_port}",),
            "127.0.0.1",
            status=f"127.0.0.1:{self.status_port}",
            accept_proxy=self.accept_proxy,
        )

    def adapter(self, binds: tuple[str, ...] = (), patience: float = 15.0) -> Nginx:
        settings = self.settings()
        return Nginx(replace(settings, http_binds=binds or settings.http_binds), patience=patience)

    def write_main(self) -> None:
        self.settings().folder.mkdir()
        temporary = "".join(
            f"  {kind}_temp_path {self.folder}/temporary-{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        servers = "".join(f"  server 127.0.0.1:{app.port};\n" for app in self.foreign)
        (self.folder / "sites").mkdir()
        (self.folder / "sites" / "theirs.conf").write_text(
            f"upstream theirs {{\n{servers}}}\n"
            f"server {{ listen 127.0.0.1:{self.foreign_port}; location / {{ proxy_pass http://theirs; }} }}\n"
        )
        user = "user root;\n" if os.geteuid() == 0 else ""  # another user may not enter the folder of a test
        self.main.write_text(
            f"{user}daemon off;\nworker_processes 2;\npid {self.folder}/nginx.pid;\n"
            f"error_log {self.folder}/error.log;\ninclude /etc/nginx/modules-enabled/*.conf;\n"
            "worker_shutdown_timeout 20s;\nevents { worker_connections 512; }\n"
            f"http {{\n  access_log off;\n{temporary}  include ours/coupler-http.conf;\n  include sites/*.conf;\n}}\n"
            f"stream {{\n  include {self.settings().stream};\n}}\n"
        )

    def start(self) -> None:
        argv = ["nginx", "-e", str(self.folder / "start.log"), "-c", str(self.main)]
        with (self.folder / "output.log").open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
        eventually(lambda: self.generation() is not None, "nginx does not start")

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run with our first, empty files in place."""
        self.write_main()
        asyncio.run(self.adapter().prepare(Desired()))
        try:
            self.start()
            yield
        finally:
            self.stop()

    def stop(self) -> None:
        """Stop nginx and every worker of it, the old ones too."""
        if self.process is None:
            return
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(DEADLINE)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def generation(self) -> str | None:
        return asyncio.run(process.generation(self.settings()))

    def text(self) -> str:
        return self.settings().http.read_text()

    def ask(
        self,
        path: str = "/",
        host: str = "shop.test",
        method: str = "GET",
        body: bytes | None = None,
        port: int = 0,
        **headers: str,
    ) -> Answer:
        """Return the answer to one request on a connection of its own."""
        connection = HTTPConnection("127.0.0.1", port or self.port, timeout=DEADLINE)
        try:
            connection.request(method, path, body, headers={"Host": host} | headers)
            return Answer.read(connection.getresponse())
        finally:
            connection.close()

    def ask_tls(self, host: str, path: str = "/", name: str | None = None) -> tuple[Answer, list[str]]:
        """Return the answer over TLS to `host`, and names on its certificate. `name` is the SNI: empty for none."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        shown = host if name is None else name
        with (
            socket.create_connection(("127.0.0.1", self.tls_port), DEADLINE) as plain,
            context.wrap_socket(plain, server_hostname=shown or None) as client,
        ):
            der = client.getpeercert(binary_form=True)
            assert der is not None
            alternatives = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            )
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            response = HTTPResponse(client)
            response.begin()
            return Answer.read(response), alternatives.value.get_values_for_type(x509.DNSName)


@dataclass(frozen=True)
class Answer:
    """Status, body and headers (names in lower case)."""

    status: int
    body: str
    headers: dict[str, str]

    @classmethod
    def read(cls, response: HTTPResponse) -> Answer:
        headers = {name.lower(): value for name, value in response.getheaders()}
        return cls(response.status, response.read().decode(), headers)

    @property
    def seen(self) -> Any:
        """What a `Mirror` was asked."""
        return json.loads(self.body)


class PatientLoad(Load):
    """Clients that ask again, once, where a connection that they kept was closed before it answered.

    As RFC 9112, section 9.3.1, has it: nginx closes idle connections of old workers.
    """

    def _run(self, keep: bool) -> None:
        connection, used = None, False
        while not self._stop.is_set():
            connection = connection or HTTPConnection("127.0.0.1", self._port, timeout=DEADLINE)
            closes = True
            try:
                connection.request("GET", f"/{next(self._count)}", headers={"Host": self._host})
                answer = connection.getresponse()
                body = answer.read().decode()
                closes = not keep or answer.will_close
                self._note(body if answer.status == 200 else None, f"{answer.status}: {body[:80]}")
                used = not closes
            except (OSError, HTTPException) as error:
                if not (used and isinstance(error, _NEVER_SENT)):
                    self._note(None, repr(error))
                used = False
            if closes:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()


class Mirror(Instance):
    """An instance that answers with what it was asked, as JSON; and an upgrade with an echo of what comes."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(_MirrorHandler, tls=tls)


class _MirrorHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        if self.headers.get("Upgrade") and self.headers.get("Connection", "").lower() == "upgrade":
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "upgrade")
            self.end_headers()
            while data := self.rfile.read1(1024):  # type: ignore[attr-defined]
                self.wfile.write(data)
            self.close_connection = True
            return
        length = int(self.headers.get("Content-Length") or 0)
        received = len(self.rfile.read(length))
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = json.dumps({"path": self.path, "method": self.command, "headers": headers, "body": received}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 -- the name that the server looks for

    def log_message(self, *args: object) -> None:
        pass
