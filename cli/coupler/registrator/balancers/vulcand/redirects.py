"""Which plain requests are sent to TLS, in the words of vulcand's `rewrite`. Pure.

vulcand hands `rewrite` the URL as it was asked for, with `https` where the connection, or a header X-Forwarded-Proto,
says so: an expression that begins with `http:` never takes a request that came over TLS, so nothing goes in circles. A
redirect there is a 302. What it leads to is run as a template; so the URL's own text is filled in by the template and
never becomes one. Source: vulcand's `plugin/rewrite/rewrite.go`. Go's expressions (RE2) know no "all but", so it is
spelled out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coupler.registrator.balancers.vulcand.routes import quoted
from coupler.registrator.model import ACME_PATH
from coupler.registrator.routing import EXACT_HOST, WILDCARD_HOST, host_kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coupler.registrator.balancers.vulcand.documents import Document
    from coupler.registrator.model import Host, Route

_HTTPS_PORT = 443
_ASKED = "{{.Request.URL.RequestURI}}"
_ANY, _LABEL = r"[^/:\[\]{]", r"[^/:\[\]{.]"
_ADDRESS = r"\[[0-9a-f:.]*\]"


class Redirects:
    """The redirects of hosts. Plain requests are sent to `port`."""

    def __init__(self, hosts: Iterable[Host], port: int = _HTTPS_PORT) -> None:
        self._by_name = {host.name: host.redirect for host in hosts}
        self._port = "" if port == _HTTPS_PORT else f":{port}"
        self._made: dict[str, Document | None] = {}

    def of(self, route: Route) -> Document | None:
        """Return the rewrite for a route's plain requests; None if none of its hosts wants one."""
        if route.host not in self._made:
            names = self._names(route.host)
            self._made[route.host] = None if names is None else self._rewrite(names)
        return self._made[route.host]

    def _rewrite(self, names: str) -> Document:
        # a client may ask with a whole URL, as of a proxy
        start = rf"^http://((?i:{names}))(?::[0-9]*)?(?:[A-Za-z]+://[^/?]*)?"
        return {
            "Regexp": rf"{start}(?:|\?.*|/{but_for(ACME_PATH[1:])})$",
            "Replacement": f"https://${{1}}{self._port}{_ASKED}",
            "RewriteBody": False,
            "Redirect": True,
        }

    def _names(self, host: str) -> str | None:
        kind = host_kind(host)
        whole = self._by_name.get("", False)
        if kind == EXACT_HOST:
            wild = self._by_name.get("*." + host.partition(".")[2], whole) if "." in host else whole
            return quoted(host) if self._by_name.get(host, wild) else None
        below = self._by_name
        if kind == WILDCARD_HOST:
            below = {name: way for name, way in below.items() if name == host or name.partition(".")[2] == host[2:]}
        found = _Node.of(below).expression(whole, whole)
        if found is None:
            return None
        return f"{found}|{_ADDRESS}" if kind != WILDCARD_HOST and whole else found


def but_for(start: str) -> str:
    """Return an expression for what does not begin with `start`."""
    found = ""
    for character in reversed(start):
        found = (
            f"(?:|[^{quoted(character)}].*|{quoted(character)}{found})" if found else f"(?:|[^{quoted(character)}].*)"
        )
    return found


@dataclass(slots=True)
class _Node:
    """Names, read from their ends: what holds for a name that is read, and for those with one label more."""

    below: dict[str, _Node] = field(default_factory=dict)
    own: bool | None = None
    wild: bool | None = None

    @classmethod
    def of(cls, names: dict[str, bool]) -> _Node:
        """Return a tree of names."""
        root = cls()
        for name, way in names.items():
            node = root
            for character in reversed(name.removeprefix("*")):
                node = node.below.setdefault(character, cls())
            if name.startswith("*."):
                node.wild = way
            elif name:
                node.own = way
        return root

    def expression(self, label: bool, dotted: bool) -> str | None:
        """Return what the rest of a name must be, to be taken; None if there is no such name.

        `label` is what holds for a rest that is one label, `dotted` for one of several, where nothing in the tree says
        otherwise.
        """
        label = label if self.wild is None else self.wild
        ways: list[str] = []
        if self.own if self.own is not None else label:
            ways.append("")
        for character, node in sorted(self.below.items()):
            inner = node.expression(dotted, dotted) if character == "." else node.expression(label, dotted)
            if inner is not None:
                ways.append(f"{inner}{quoted(character)}")
        return _any((*ways, *self._elsewhere(label, dotted)))

    def _elsewhere(self, label: bool, dotted: bool) -> list[str]:
        """Return the rests whose last character leads out of the tree."""
        known = "".join(sorted(self.below.keys() - {"."})).replace("-", r"\-")
        last = rf"[^/:\[\]{{.{known}]"
        ways = [f"{_ANY}*{last}"] if label and dotted else []
        ways += [f"{_LABEL}*{last}"] if label and not dotted else []
        ways += [rf"{_ANY}*\.{_LABEL}*{last}"] if dotted and not label else []
        return ways + ([rf"{_ANY}*\."] if dotted and "." not in self.below else [])


def _any(ways: tuple[str, ...]) -> str | None:
    if not ways:
        return None
    return ways[0] if len(ways) == 1 else f"(?:{'|'.join(ways)})"
