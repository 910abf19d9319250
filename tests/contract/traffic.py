"""Real backends on loopback, and clients that count what fails."""

from __future__ import annotations

import base64
import hashlib
import http.server
import itertools
import socket
import threading
import time
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

DEADLINE = 15.0


def free_port() -> int:
    """Return a port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(what: Callable[[], bool], why: str, within: float = DEADLINE) -> None:
    """Wait until `what` holds; fail with `why` after so many seconds."""
    deadline = time.monotonic() + within
    while not what():
        assert time.monotonic() < deadline, why
        time.sleep(0.01)


class Instance(http.server.ThreadingHTTPServer):
    """A server on a port of loopback, over TLS if there is a context for it, until it is stopped."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, handler: type[http.server.BaseHTTPRequestHandler], port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(("127.0.0.1", port), handler)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        """Let a connection that is reset end in silence."""

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()


class App(Instance):
    """One instance: answers every request with its name, after `delay` seconds; /health with `health`.

    A connection that is upgraded gets back what it sends.
    """

    def __init__(self, name: str, port: int = 0) -> None:
        self.app_name, self.delay, self.health, self.served = name, 0.0, 200, 0
        self.path, self.headers = "", dict[str, str]()  # of the last request
        super().__init__(_Handler, port)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes: on a kept connection the second would wait 40 ms
    server: App

    def do_GET(self) -> None:
        app = self.server
        health = self.path == "/health"
        app.served += not health
        time.sleep(0 if health else app.delay)
        if not health:
            app.path, app.headers = self.path, {name.lower(): value for name, value in self.headers.items()}
        if "upgrade" in app.headers:
            self._echo()
            return
        body = app.app_name.encode()
        self.send_response(app.health if health else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.do_GET()

    def _echo(self) -> None:
        self.send_response(101)
        self.send_header("Connection", "upgrade")
        self.send_header("Upgrade", "websocket")
        key = self.headers["Sec-WebSocket-Key"].encode()  # RFC 6455, section 4.2.2
        accepted = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest()
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(accepted).decode())
        self.end_headers()
        while data := self.connection.recv(65536):
            self.connection.sendall(data)

    def log_message(self, *args: object) -> None:
        pass


class Load:
    """Clients that ask without pause; what is no 200 is a failure, with its reason."""

    def __init__(self, port: int, clients: int = 3, host: str = "shop.test") -> None:
        self._port, self._host = port, host
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
                connection.request("GET", f"/{next(self._count)}", headers={"Host": self._host})
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
