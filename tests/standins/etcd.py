"""What the stand-ins ask of etcd: its two APIs, over HTTP."""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

Object = dict[str, Any]


def b64(text: str) -> str:
    """Return a text as the JSON of the v3 API has keys and values."""
    return base64.b64encode(text.encode()).decode()


@dataclass(frozen=True)
class Credentials:
    """The files of a client: all three, or none where etcd speaks without TLS."""

    authority: str = ""
    certificate: str = ""
    key: str = ""

    def context(self) -> ssl.SSLContext | None:
        """Return what a connection needs. Raises OSError where a file cannot be read, or is not what it should be."""
        if not self.authority:
            return None
        context = ssl.create_default_context(cafile=self.authority)
        context.load_cert_chain(self.certificate, self.key)
        return context


class Etcd:
    """An etcd at the first of these URLs that answers."""

    def __init__(self, servers: Iterable[str], credentials: Credentials) -> None:
        self._servers = [server.rstrip("/") for server in servers]
        self._tls = credentials.context()

    def v3(self, what: str, body: Object) -> Object:
        """Call the v3 API's JSON gateway, with `kv/range` and the like. Raises OSError."""
        answer: Object = json.loads(self._ask("POST", f"/v3/{what}", json.dumps(body).encode(), "application/json"))
        return answer

    def range(self, prefix: str) -> list[tuple[str, str, Object]]:
        """Return each key that begins so, its value, and what else is known of it. Raises OSError."""
        return self.range_at(prefix)[0]

    def range_at(self, prefix: str, revision: str = "0") -> tuple[list[tuple[str, str, Object]], str]:
        """Return likewise what there was at a revision of etcd, and the revision that it has now. Raises OSError."""
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        answer = self.v3("kv/range", {"key": b64(prefix), "range_end": b64(end), "revision": revision})
        found = [(_text(kv["key"]), _text(kv["value"]), kv) for kv in answer.get("kvs", [])]
        return found, answer["header"]["revision"]

    def v2(self, method: str, key: str, query: str = "", /, **form: str | int) -> Object | None:
        """Call the v2 API; None where there is no such key, or a condition of `query` does not hold. Raises OSError."""
        place = f"/v2/keys{urllib.parse.quote(key)}{query and '?'}{query}"
        body = urllib.parse.urlencode(form).encode() if form else None
        try:
            answer: Object = json.loads(self._ask(method, place, body, "application/x-www-form-urlencoded"))
        except urllib.error.HTTPError as error:
            if error.code in {403, 404, 412}:  # not a directory that is there; not there; changed meanwhile
                return None
            raise
        return answer

    def tree(self, key: str) -> dict[str, str]:
        """Return every key below one, relative to it, with its value. Raises OSError."""
        found = self.v2("GET", key, "recursive=true&quorum=true")
        return dict(_leaves(found["node"], len(key) + 1)) if found else {}

    def _ask(self, method: str, path: str, body: bytes | None, kind: str) -> bytes:
        problem: OSError = OSError("no endpoint of etcd is given")
        for server in self._servers:
            request = urllib.request.Request(server + path, body, {"Content-Type": kind}, method=method)
            try:
                with urllib.request.urlopen(request, timeout=3, context=self._tls) as answer:
                    text: bytes = answer.read()
                    return text
            except urllib.error.HTTPError:
                raise
            except OSError as error:
                problem = error
        raise problem


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode()


def _leaves(node: Object, cut: int) -> Iterable[tuple[str, str]]:
    if node.get("dir"):
        for child in node.get("nodes", ()):
            yield from _leaves(child, cut)
    else:
        yield node["key"][cut:], node["value"]
