"""Questions to a running registrator, and its answers for people."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from coupler.errors import HostFailedError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTROL = Path("/run/coupler-registrator/control.sock")
_SECONDS = 10.0


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_SECONDS)
        self.sock.connect(self._path)


def ask(where: str, method: str, path: str, query: Mapping[str, str] | None = None) -> Any:
    """Return the decoded answer of the registrator at `where`: `host:port`, or a path to its control socket.

    Raises UnreachableError where none answers, HostFailedError where it refuses.
    """
    connection = _UnixConnection(where) if "/" in where else http.client.HTTPConnection(where, timeout=_SECONDS)
    try:
        connection.request(method, f"{path}?{urlencode(query)}" if query else path)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        hint = "is it running? give its address, or its control socket, with --at"
        raise UnreachableError(f"no registrator answers at {where}", str(error), hint) from error
    finally:
        connection.close()
    if answer.status >= http.client.BAD_REQUEST:
        raise HostFailedError(f"the registrator at {where} refuses", f"{answer.status}: {body.decode().strip()}")
    return json.loads(body)


def explained(answer: Mapping[str, Any]) -> str:
    """Return an answer of `/explain` as lines."""
    lines = [f"{answer['host']}{answer['path']}"]
    for entry in answer["considered"]:
        route = entry["route"]
        match = f"{route['host']}{route['path']}{'' if route['exact'] else '*'}"
        headers = "".join(f" [{name}: {value}]" for name, value in route["headers"].items())
        lines.append(f"  {'→' if entry['takes'] else '·'} route {route['id']} ({match}{headers}): {entry['why']}")
    backend = answer["backend"]
    if backend is None:
        return "\n".join([*lines, "  no route takes it"])
    lines.append(f"  backend {backend['id']}")
    lines += [f"    {_endpoint(endpoint)}" for endpoint in backend["endpoints"]] or ["    no endpoints"]
    return "\n".join(lines)


def _endpoint(endpoint: Mapping[str, Any]) -> str:
    address = f"[{endpoint['address']}]" if ":" in endpoint["address"] else endpoint["address"]
    return f"{address}:{endpoint['port']} {endpoint['state']} weight {endpoint['weight']} ({endpoint['uid']})"
