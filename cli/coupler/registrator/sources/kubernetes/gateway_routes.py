"""HTTPRoutes and TCPRoutes: where they attach, what they ask for, what is said of them in their status.

A balancer of ours has one table of routes for plain HTTP and for TLS. So a route that attaches to HTTPS listeners only
is kept from plain requests by sending these to TLS, and a rule that does nothing but that becomes the host's redirect.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from coupler.registrator.model import TcpRoute
from coupler.registrator.sources.kubernetes.conditions import Condition, no, same, written, yes
from coupler.registrator.sources.kubernetes.gateway import GROUP, supported_kinds
from coupler.registrator.sources.kubernetes.gateway_rules import Backends, only_redirects, read_rules
from coupler.registrator.sources.kubernetes.objects import Wish
from coupler.registrator.sources.kubernetes.plan import HostClaim, Translation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from coupler.registrator.sources.kubernetes.gateway import Gate, Listener, Objects
    from coupler.registrator.sources.kubernetes.gateway_rules import Rule
    from coupler.registrator.sources.kubernetes.objects import Json, Kept, Key
    from coupler.registrator.sources.kubernetes.settings import KubernetesSettings

WILDCARD = "a wildcard takes names with one label more, and no longer ones"


@dataclass(slots=True)
class Attached:
    """One route at one parent: the listeners with the hosts that they share, or why there are none."""

    parent: Json
    accepted: Condition
    places: list[tuple[Listener, list[str]]] = field(default_factory=list)


@dataclass(slots=True)
class Attachment:
    """A route and its parents among our gateways."""

    kept: Kept
    parents: list[Attached]
    rules: list[Rule] = field(default_factory=list)
    resolved: Condition = field(default_factory=lambda: yes("ResolvedRefs", "ResolvedRefs"))

    def refuse(self, message: str) -> None:
        """Refuse the route at all parents that would take it."""
        for parent in self.parents:
            if parent.accepted.holds:
                parent.accepted = no("Accepted", "UnsupportedValue", message)
                parent.places = []

    def remark(self, message: str) -> None:
        """Add to what is said where the route is accepted."""
        for parent in self.parents:
            if parent.accepted.holds and message not in parent.accepted.message:
                said = "; ".join(filter(None, (parent.accepted.message, message)))
                parent.accepted = yes("Accepted", "Accepted", said)

    def hosts(self, protocol: str) -> dict[str, Key | None]:
        """Return its hosts at the listeners of a protocol, with their Secrets."""
        found: dict[str, Key | None] = {}
        for parent in self.parents:
            for listener, hosts in parent.places:
                if listener.protocol == protocol:
                    found |= {host: listener.secret for host in hosts if found.get(host) is None}
        return found


def translate(gates: Sequence[Gate], objects: Objects, settings: KubernetesSettings, into: Translation) -> None:
    """Add what all routes that attach to `gates` ask for."""
    web = [_attach(kept, "HTTPRoute", gates, objects) for kept in objects.of("HTTPRoute")]
    connections = [_attach(kept, "TCPRoute", gates, objects) for kept in objects.of("TCPRoute")]
    for attachment in web:
        _http_rules(attachment, objects, settings, into)
    _keep_apart(web)
    secured = _secured(gates)
    for attachment in web:
        _http_routes(attachment, secured, objects, into)
    owners: dict[int, str] = {}
    for attachment in connections:
        _tcp_routes(attachment, owners, objects, settings, into)
    for attachment in (*web, *connections):
        for parent in attachment.parents:
            for listener, _ in parent.places:
                listener.attached += 1
        _complain(attachment, into)
        _status(attachment, settings, into)


def intersection(listener: str, hostnames: Iterable[str]) -> list[str]:
    """Return the hosts that a listener's hostname and a route's hostnames have in common; empty is any host."""
    names = [name.lower() for name in hostnames]
    if not names:
        return [listener]
    if not listener:
        return names
    found = []
    for name in names:
        if name == listener or (listener.startswith("*.") and name.endswith(listener[1:])):
            found.append(name)
        elif name.startswith("*.") and listener.endswith(name[1:]):
            found.append(listener)
    return list(dict.fromkeys(found))


def _attach(kept: Kept, kind: str, gates: Sequence[Gate], objects: Objects) -> Attachment:
    parents = []
    for ref in kept.spec.get("parentRefs") or ():
        if (ref.get("group", GROUP), ref.get("kind") or "Gateway") != (GROUP, "Gateway"):
            continue
        key = (ref.get("namespace") or kept.about.namespace, ref.get("name"))
        gate = next((gate for gate in gates if gate.kept.key == key), None)
        if gate is not None:
            parents.append(_parent(kept, kind, ref, gate, objects))
    return Attachment(kept, parents)


def _parent(kept: Kept, kind: str, ref: Json, gate: Gate, objects: Objects) -> Attached:
    def refused(reason: str, message: str) -> Attached:
        return Attached(ref, no("Accepted", reason, message))

    named = [
        listener
        for listener in gate.listeners
        if ref.get("sectionName") in {None, listener.name} and ref.get("port") in {None, listener.port}
    ]
    if not [listener for listener in named if listener.usable]:
        return refused("NoMatchingParent", "the Gateway has no usable listener of that name and port")
    allowing = [
        listener
        for listener in named
        if listener.usable
        and any(entry["kind"] == kind for entry in supported_kinds(listener))
        and _allows(listener, gate, kept.about.namespace, objects)
    ]
    if not allowing:
        return refused("NotAllowedByListeners", f"no listener takes {kind}s of namespace {kept.about.namespace}")
    if kind == "TCPRoute":
        return Attached(ref, yes("Accepted", "Accepted"), [(listener, [""]) for listener in allowing])
    places = [(entry, intersection(entry.hostname, kept.spec.get("hostnames") or ())) for entry in allowing]
    places = [(listener, hosts) for listener, hosts in places if hosts]
    if not places:
        return refused("NoMatchingListenerHostname", "none of its hostnames is one of the listener's")
    wild = any(host.startswith("*.") for _, hosts in places for host in hosts)
    return Attached(ref, yes("Accepted", "Accepted", WILDCARD if wild else ""), places)


def _allows(listener: Listener, gate: Gate, namespace: str, objects: Objects) -> bool:
    allowed = (listener.spec.get("allowedRoutes") or {}).get("namespaces") or {}
    match allowed.get("from") or "Same":
        case "All":
            return True
        case "Selector":
            entry = objects.kept["Namespace"].get(("", namespace))
            return entry is not None and selects(allowed.get("selector") or {}, dict(entry.labels))
        case "Same":
            return namespace == gate.kept.about.namespace
        case _:
            return False


def selects(selector: Json, labels: dict[str, str]) -> bool:
    """Return whether a label selector of the API takes these labels."""
    if any(labels.get(name) != text for name, text in (selector.get("matchLabels") or {}).items()):
        return False
    for entry in selector.get("matchExpressions") or ():
        held, texts = labels.get(entry["key"]), entry.get("values") or ()
        fits = {
            "In": held in texts,
            "NotIn": held not in texts,
            "Exists": held is not None,
            "DoesNotExist": held is None,
        }
        if not fits.get(entry["operator"], False):
            return False
    return True


def _http_rules(attachment: Attachment, objects: Objects, settings: KubernetesSettings, into: Translation) -> None:
    if not any(parent.accepted.holds for parent in attachment.parents):
        return
    backends = Backends(attachment.kept, objects, settings)
    rules, unsupported = read_rules(attachment.kept, backends)
    for text in backends.complaints:
        into.complain(attachment.kept.about, text)
    if unsupported:
        attachment.refuse(unsupported)
        return
    attachment.rules, attachment.resolved = rules, backends.resolved()


def _keep_apart(attachments: Sequence[Attachment]) -> None:
    """Refuse routes for TLS alone where another route serves plain requests of the same host."""
    plain: dict[str, str] = {}
    for attachment in attachments:
        if not all(only_redirects(rule) for rule in attachment.rules):
            for host in attachment.hosts("HTTP"):
                plain.setdefault(host, str(attachment.kept.about))
    for attachment in attachments:
        both = set(attachment.hosts("HTTPS")) - set(attachment.hosts("HTTP"))
        clash = sorted(host for host in both if host in plain)
        if clash:
            attachment.refuse(
                f"{clash[0] or 'any host'}: {plain[clash[0]]} serves it over plain HTTP, and the balancer has the same "
                "routes for both: attach the routes to both listeners, or only redirects to the plain one"
            )


def _secured(gates: Sequence[Gate]) -> dict[str, Key]:
    """Return the Secrets of the hostnames that our gateways serve over TLS."""
    return {
        listener.hostname: listener.secret
        for gate in gates
        for listener in gate.listeners
        if listener.usable and listener.secret
    }


def _secret_of(host: str, secured: dict[str, Key]) -> Key | None:
    wild = f"*.{host.partition('.')[2]}"
    return secured.get(host) or secured.get(wild) or secured.get("")


def _http_routes(attachment: Attachment, secured: dict[str, Key], objects: Objects, into: Translation) -> None:
    kept, plain, safe = attachment.kept, attachment.hosts("HTTP"), attachment.hosts("HTTPS")
    for host in dict.fromkeys((*plain, *safe)):
        certified, secret = safe.get(host), _secret_of(host, secured)
        if host not in plain:
            if certified is None or objects.secrets.get(certified) is None:
                continue  # without a certificate it would be served over plain HTTP
            into.hosts.append(HostClaim(kept.about, kept.created, host, certified, redirect=True))
        elif host not in safe and secret and not all(map(only_redirects, attachment.rules)):
            attachment.remark(f"{host or 'any host'} is answered over TLS too, since it has a certificate")
        for rule in attachment.rules:
            if only_redirects(rule) and host in plain and host not in safe and secret:
                into.hosts.append(HostClaim(kept.about, kept.created, host, secret, redirect=True))
                continue
            for match in rule.matches:
                backend = into.plan(match.plan)
                into.claim(kept.about, kept.created, partial(match.route, host, backend), None)


def _tcp_routes(
    attachment: Attachment, owners: dict[int, str], objects: Objects, settings: KubernetesSettings, into: Translation
) -> None:
    kept = attachment.kept
    if not any(parent.accepted.holds for parent in attachment.parents):
        return
    rules = kept.spec.get("rules") or []
    if len(rules) != 1:
        attachment.refuse(f"there are {len(rules)} rules; exactly one is supported")
        return
    taken = sorted({listener.port for parent in attachment.parents for listener, _ in parent.places} & owners.keys())
    if taken:
        attachment.refuse(f"port {taken[0]} belongs to {owners[taken[0]]}, which is older: a port has one owner")
        return
    backends = Backends(kept, objects, settings)
    plan = backends.tcp_plan(rules[0].get("backendRefs") or ())
    attachment.resolved = backends.resolved()
    for parent in attachment.parents:
        for listener, _ in parent.places:
            owners[listener.port] = str(kept.about)
            name = f"{kept.about.namespace}/{kept.about.name}:{listener.port}/tcp"
            into.claim(kept.about, kept.created, partial(TcpRoute, name, into.plan(plan), listener.port), None)


def _complain(attachment: Attachment, into: Translation) -> None:
    for condition in (*(parent.accepted for parent in attachment.parents), attachment.resolved):
        if not condition.holds and attachment.parents:
            into.complain(attachment.kept.about, f"{condition.reason}: {condition.message}")


def _status(attachment: Attachment, settings: KubernetesSettings, into: Translation) -> None:
    kept = attachment.kept
    observed = kept.status.get("parents") or []
    ours = [entry for entry in observed if entry.get("controllerName") == settings.controller]
    theirs = [entry for entry in observed if entry.get("controllerName") != settings.controller]
    wanted = []
    for parent in attachment.parents:
        known: Json = next((entry for entry in ours if entry.get("parentRef") == parent.parent), {})
        conditions = written([parent.accepted, attachment.resolved], known.get("conditions") or (), kept.generation)
        wanted.append({"parentRef": parent.parent, "controllerName": settings.controller, "conditions": conditions})
    if not same(ours, wanted):
        plural = {"HTTPRoute": "httproutes", "TCPRoute": "tcproutes"}[kept.about.kind]
        path = f"{kept.about.api_path}/namespaces/{kept.about.namespace}/{plural}/{kept.about.name}/status"
        patch = {"metadata": {"resourceVersion": kept.version}, "status": {"parents": [*theirs, *wanted]}}
        into.wishes.append(Wish(kept.about, path, patch))
