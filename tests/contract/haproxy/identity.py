"""Certificates made for a test, and clients of TLS that look at what they are served."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

from tests.contract.certificates import certificate

from coupler.registrator.model import Certificate

if TYPE_CHECKING:
    from collections.abc import Iterator


def broken(one: Certificate, other: Certificate) -> Certificate:
    """Return a certificate with somebody else's key: the model makes none."""
    made: Certificate = object.__new__(Certificate)
    object.__setattr__(made, "chain", one.chain)
    object.__setattr__(made, "key", other.key)
    return made


def lengthened(one: Certificate, blocks: int) -> Certificate:
    """Return the same certificate with as many more behind it in its chain."""
    return Certificate(one.chain + "".join(certificate(f"ca-{n}").chain for n in range(blocks)), one.key)


def der(own: Certificate) -> bytes:
    """Return the server's own certificate."""
    return ssl.PEM_cert_to_DER_cert(own.chain.partition("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n")


def connect(port: int, name: str | None, *protocols: str) -> ssl.SSLSocket:
    """Return a connection over TLS that asked for this name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(list(protocols) or ["http/1.1"])
    raw = socket.create_connection(("127.0.0.1", port), 10)
    try:
        return context.wrap_socket(raw, server_hostname=name)
    except OSError:
        raw.close()
        raise


def served(port: int, name: str | None) -> bytes | None:
    """Return the certificate that a client who asks for this name gets; None where the handshake is refused."""
    try:
        with connect(port, name) as client:
            return client.getpeercert(binary_form=True)
    except ssl.SSLError:
        return None


def ask(client: socket.socket, host: str, path: str = "/") -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of a request on a connection that stays open."""
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    lines = _lines(client)
    status = int(next(lines).split(" ")[1])
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = b""
    while len(body) < int(headers.get("content-length", 0)):
        body += client.recv(65536)
    return status, headers, body


def _lines(client: socket.socket) -> Iterator[str]:
    """Return the lines of a head; not a byte behind it is read."""
    line = b""
    while True:
        byte = client.recv(1)
        if not byte:
            raise ConnectionError("the connection ended")
        line += byte
        if line.endswith(b"\r\n"):
            if line == b"\r\n":
                return
            yield line.decode("latin-1").rstrip()
            line = b""
