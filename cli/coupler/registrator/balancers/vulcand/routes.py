"""Routes as expressions of vulcand, in the order of `coupler.registrator.routing`.

vulcand's router (github.com/vulcand/route, `router.compile`) tries its expressions in the reverse order of their
texts, and the first that matches takes the request. So each of ours begins with a condition that always holds and
whose text is the route's rank: `MethodRegexp("(<rank>)?")`. It also keeps vulcand from joining expressions into tries,
whose order is another one. The rank depends on the route alone: a new route changes no other.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from coupler.registrator.model import ModelError
from coupler.registrator.routing import EXACT_HOST, WILDCARD_HOST, host_kind

if TYPE_CHECKING:
    from coupler.registrator.model import Route

_META = re.compile(r"[\\.+*?()|\[\]{}^$]")
_PRIORITIES = 10**9
_LONGEST, _MOST_HEADERS = 10**5, 100


def expression(route: Route) -> str:
    """Return the route's expression. Raises ModelError where its rank cannot be written."""
    terms = [f"MethodRegexp({_text(f'({_rank(route)})?')})"]
    kind = host_kind(route.host)
    if kind == EXACT_HOST:
        terms.append(f"Host({_text(route.host)})")
    elif kind == WILDCARD_HOST:
        terms.append(f"HostRegexp({_text(f'^[^.]*{quoted(route.host[1:])}$')})")
    terms.append(f"PathRegexp({_text(_path(route))})")
    terms += [f"HeaderRegexp({_text(name)}, {_text(f'^{quoted(value)}$')})" for name, value in route.headers]
    return " && ".join(terms)


def quoted(text: str) -> str:
    """Return a regular expression of Go (RE2) that matches `text` alone."""
    return _META.sub(lambda match: "\\" + match.group(), text)


def _path(route: Route) -> str:
    if route.exact:
        return f"^{quoted(route.path)}$"
    stem = route.path.rstrip("/")
    return f"^{quoted(stem)}(/|$)" if stem else "^/"


def _rank(route: Route) -> str:
    """Return a text that is greater the earlier the route comes: see `coupler.registrator.routing.order`."""
    if abs(route.priority) >= _PRIORITIES or len(route.path) >= _LONGEST or len(route.headers) >= _MOST_HEADERS:
        raise ModelError(f"route {route.id}: its priority, path or headers are too much for vulcand")
    kind = 2 - host_kind(route.host)
    rank = f"{kind}{route.exact:d}{len(route.path):05}{route.priority + _PRIORITIES:010}{len(route.headers):02}"
    if not route.headers:
        return rank
    # a smaller id comes first: its bytes are turned round, and a text that ends is greater than one that goes on
    return rank + "".join(f"{255 - byte:02x}" for byte in route.id.encode("utf-8", "surrogateescape")) + "g"


def _text(value: str) -> str:
    """Return a text as Go writes it: for what our routes may hold, that is JSON's way."""
    return json.dumps(value, ensure_ascii=True)
