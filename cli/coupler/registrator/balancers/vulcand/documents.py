"""The values of vulcand's keys. Whatever could stop a vulcand at its start is refused here, with a `ModelError`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coupler.registrator.balancers.vulcand.ids import server_id
from coupler.registrator.balancers.vulcand.middlewares import checked
from coupler.registrator.balancers.vulcand.routes import expression, quoted
from coupler.registrator.model import Balance, Mode, ModelError, State

if TYPE_CHECKING:
    from coupler.registrator.model import Backend, Endpoint, Policy, Route

_MOST = 2**53
_FIRST = -1_000_000
_PATH, _QUERY = r"(?:\{?[^{?])*\{?", r"(?:\{?[^{])*\{?"
"""What has no two braces, by which templates begin; a path ends at the question mark."""

Document = dict[str, Any]


def unsupported(backend: Backend) -> str | None:
    """Return what of a backend vulcand cannot carry at all, so that it is not served by it; None if nothing is."""
    policy = backend.policy
    if backend.mode is Mode.TCP:
        return "vulcand balances no plain TCP"
    for name in ("send_proxy", "set_headers", "remove_headers", "redirect"):
        if getattr(policy, name):
            return f"vulcand has no {name.replace('_', '-')}"
    return None


def ignored(backend: Backend) -> tuple[str, ...]:
    """Return what of a backend's policy vulcand goes without, though it serves it."""
    policy = backend.policy
    names = [name for name in ("check_path", "sticky_cookie", "tunnel_timeout") if getattr(policy, name)]
    if policy.balance is not Balance.ROUNDROBIN:
        names.append("balance")
    if any(endpoint.weight != backend.endpoints[0].weight for endpoint in backend.endpoints if endpoint.weight):
        names.append("weight")
    return tuple(name.replace("_", "-") for name in names)


def backend_document(policy: Policy) -> Document:
    """Return the value of `backends/<id>/backend`."""
    settings: Document = {}
    timeouts = {"Dial": policy.connect_timeout, "Read": policy.read_timeout}
    if any(timeouts.values()):
        settings["Timeouts"] = {
            name: f"{max(1, round(seconds * 1000))}ms" for name, seconds in timeouts.items() if seconds
        }
    if policy.tls:
        settings["TLS"] = {"InsecureSkipVerify": True}
    return {"Type": "http", "Settings": settings}


def url_of(endpoint: Endpoint, policy: Policy) -> str:
    """Return where an endpoint is."""
    address = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
    return f"{'https' if policy.tls else 'http'}://{address}:{endpoint.port}"


def servers(backend: Backend) -> tuple[dict[str, Document], frozenset[str]]:
    """Return the servers by name, and the names of those that are known and are to get nothing."""
    taking: dict[str, Document] = {}
    known = set()
    for endpoint in backend.endpoints:
        url = url_of(endpoint, backend.policy)
        name = server_id(url)
        known.add(name)
        if endpoint.state is State.READY and endpoint.weight:
            taking[name] = {"URL": url}
    return taking, frozenset(known - taking.keys())


def frontend_document(route: Route, policy: Policy, backend: str) -> Document:
    """Return the value of `frontends/<id>/frontend`."""
    settings: Document = {"PassHostHeader": True}
    if policy.max_body:
        settings["Limits"] = {"MaxBodyBytes": _bounded(policy.max_body, "max-body")}
    return {"Type": "http", "BackendId": backend, "Route": expression(route), "Settings": settings}


def middlewares(route: Route, policy: Policy, to_tls: Document | None = None) -> dict[str, Document]:
    """Return the middlewares of a route by name: what sends it to TLS, those of the policy, and the route's own.

    The one with the lowest priority sees a request first.
    """
    made: dict[str, Document] = {}
    if to_tls is not None:
        made["coupler-to-tls"] = {"Type": "rewrite", "Priority": _FIRST, "Middleware": to_tls}
    if policy.rate_limit:
        rate = _bounded(policy.rate_limit, "rate-limit")
        limit = {"PeriodSeconds": 1, "Requests": rate, "Burst": rate, "Variable": "client.ip"}
        made["coupler-rate-limit"] = {"Type": "ratelimit", "Priority": 0, "Middleware": limit}
    if policy.replace_prefix:
        rewrite = _rewrite(*policy.replace_prefix)
        made["coupler-replace-prefix"] = {"Type": "rewrite", "Priority": 1000, "Middleware": rewrite}
    for middleware in route.middlewares:
        if middleware.id in made:
            raise ModelError(f"route {route.id}: it has two middlewares {middleware.id}")
        made[middleware.id] = checked(middleware)
    return made


def _rewrite(old: str, new: str) -> Document:
    """Return the rewrite of a prefix in whole segments.

    vulcand matches whole URLs, and runs what it makes of them as a template: a URL with the braces of a template is
    left as it is, for a client must not write one.
    """
    old, new = old.rstrip("/"), new.rstrip("/")
    path = rf"((?:/{_PATH})?)" if new else rf"(?:/({_PATH}))?"
    return {
        "Regexp": rf"^([a-z]+://[^/{{]*){quoted(old)}{path}((?:\?{_QUERY})?)$",
        "Replacement": "${1}" + (new.replace("$", "$$") or "/") + "${2}${3}",
        "RewriteBody": False,
        "Redirect": False,
    }


def _bounded(number: int, name: str) -> int:
    if number > _MOST:
        raise ModelError(f"{name} {number} is more than vulcand counts")
    return number
