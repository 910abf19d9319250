"""What the programs of Kubernetes serve on a node of their own health: a stand-in for each."""

from __future__ import annotations

import http.server
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

    from tests.contract.health.machines import Machine


class Process(http.server.ThreadingHTTPServer):
    """A program on a machine that answers /healthz as k8s.io/apiserver/pkg/server/healthz does, and some paths more."""

    daemon_threads = True

    def __init__(self, machine: Machine, port: int, tls: ssl.SSLContext | None = None, **more: str) -> None:
        self.failing: set[str] = set()
        self.more = {f"/{path}": text for path, text in more.items()}
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(machine, port, tls), daemon=True)
        self._thread.start()
        assert self._up.wait(10)

    def _run(self, machine: Machine, port: int, tls: ssl.SSLContext | None) -> None:
        machine.join_network()
        super().__init__(("127.0.0.1", port), _Handler)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self._up.set()
        self.serve_forever(0.01)

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Process

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        failing = self.server.failing if path == "/healthz" else set()
        lines = [f"[-]{name} failed: reason withheld" for name in sorted(failing)]
        text = "\n".join(["[+]ping ok", *lines, f"healthz check {'failed' if failing else 'passed'}"])
        body = self.server.more.get(path, text).encode()
        self.send_response(500 if failing else 200 if path in {"/healthz", *self.server.more} else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
