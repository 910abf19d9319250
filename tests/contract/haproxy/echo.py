"""An instance that answers with what it was sent: JSON of the request, of the TLS name, of the PROXY header."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any

from tests.contract.traffic import free_port

if TYPE_CHECKING:
    from pathlib import Path

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
_PROXY = b"\r\n\r\n\x00\r\nQUIT\n"


class Echo:
    """Listens on loopback; `pem` makes it speak TLS, `proxy` makes it read the PROXY protocol, version 2, first.

    A request to upgrade is granted, and what follows on the connection is sent back.
    """

    def __init__(self, pem: Path | None = None, *, proxy: bool = False) -> None:
        self.port, self.served = free_port(), 0
        self._proxy = proxy
        self._names: dict[int, str | None] = {}
        self._context = None
        if pem is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(pem)
            self._context.sni_callback = lambda sock, name, _: self._names.__setitem__(id(sock), name)
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        threading.Thread(target=self._listen, daemon=True).start()

    def stop(self) -> None:
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(20)
        told: dict[str, Any] = {}
        try:
            if self._proxy:
                told["source"] = _source(client)
            if self._context is not None:
                client = self._context.wrap_socket(client, server_side=True)
                told["name"] = self._names.get(id(client))
            with client, client.makefile("rb") as stream:
                while line := stream.readline():
                    self._answer(client, stream, line.decode().split(" "), told)
        except OSError:
            client.close()

    def _answer(self, client: socket.socket, stream: Any, line: list[str], told: dict[str, Any]) -> None:
        assert len(line) == 3, line
        headers: dict[str, str] = {}
        while row := stream.readline().decode("latin-1").rstrip("\r\n"):
            name, _, value = row.partition(": ")
            headers[name.lower()] = value
        self.served += 1
        if "upgrade" in headers:
            accepted = base64.b64encode(hashlib.sha1((headers["sec-websocket-key"] + _GUID).encode()).digest())
            client.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n")
            client.sendall(b"Sec-WebSocket-Accept: " + accepted + b"\r\n\r\n")
            while data := stream.readline():
                client.sendall(data)
            return
        stream.read(int(headers.get("content-length", 0)))
        body = json.dumps({"method": line[0], "path": line[1], "headers": headers} | told).encode()
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def _source(client: socket.socket) -> str:
    """Return the client's address in a PROXY header, version 2 (https://www.haproxy.org/download/2.6/doc/)."""
    head = client.recv(16, socket.MSG_WAITALL)
    assert head[:12] == _PROXY
    rest = client.recv(int.from_bytes(head[14:16], "big"), socket.MSG_WAITALL)
    return socket.inet_ntoa(rest[:4]) if head[12] & 0xF else ""
