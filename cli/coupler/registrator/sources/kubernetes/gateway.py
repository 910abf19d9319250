"""The Gateway API: classes, gateways with their listeners, and what routes attach to them.

Source: https://gateway-api.sigs.k8s.io/reference/spec/. What a balancer of ours cannot do is refused in a condition,
never done by half.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coupler.registrator.sources.kubernetes.conditions import Condition, no, same, written, yes
from coupler.registrator.sources.kubernetes.objects import Wish
from coupler.registrator.sources.kubernetes.plan import HostClaim, Translation
from coupler.registrator.sources.kubernetes.settings import is_address

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coupler.registrator.sources.kubernetes.objects import Json, Kept, Key
    from coupler.registrator.sources.kubernetes.secrets import Secrets
    from coupler.registrator.sources.kubernetes.services import Service
    from coupler.registrator.sources.kubernetes.settings import KubernetesSettings

GROUP = "gateway.networking.k8s.io"
KINDS = {"HTTP": "HTTPRoute", "HTTPS": "HTTPRoute", "TCP": "TCPRoute"}
"""Protocols of listeners that we have, and the routes that attach to them."""


@dataclass(frozen=True, slots=True)
class Objects:
    """What gateways and their routes refer to."""

    kept: Mapping[str, Mapping[Key, Kept]]
    services: Mapping[Key, Service]
    secrets: Secrets

    def of(self, kind: str) -> list[Kept]:
        """Return the objects of a kind, the oldest first."""
        return sorted(self.kept[kind].values(), key=lambda entry: entry.age)

    def granted(self, source: tuple[str, str, str], target: tuple[str, str, str, str]) -> bool:
        """Return whether an object of (group, kind, namespace) may refer to (group, kind, namespace, name)."""
        group, kind, namespace, name = target
        if source[2] == namespace:
            return True
        for grant in self.kept["ReferenceGrant"].values():
            if grant.about.namespace != namespace:
                continue
            froms = [(e.get("group") or "", e.get("kind"), e.get("namespace")) for e in grant.spec.get("from") or ()]
            tos = [(e.get("group") or "", e.get("kind"), e.get("name") or name) for e in grant.spec.get("to") or ()]
            if source in froms and (group, kind, name) in tos:
                return True
        return False


@dataclass(slots=True)
class Listener:
    """One listener: what it takes, or what is wrong with it; `attached` counts its routes."""

    name: str
    protocol: str
    port: int
    hostname: str
    spec: Json
    accepted: Condition = field(default_factory=lambda: yes("Accepted", "Accepted"))
    resolved: Condition = field(default_factory=lambda: yes("ResolvedRefs", "ResolvedRefs"))
    conflict: Condition = field(default_factory=lambda: no("Conflicted", "NoConflicts"))
    secret: Key | None = None
    attached: int = 0

    @property
    def usable(self) -> bool:
        """Whether routes may attach to it."""
        return self.accepted.holds and not self.conflict.holds

    def wrong(self) -> list[Condition]:
        """Return what is wrong with it; of a Secret that is named, whoever looks at hosts will tell."""
        found = [self.accepted] if not self.accepted.holds else []
        found += [self.conflict] if self.conflict.holds else []
        return found + ([self.resolved] if not self.resolved.holds and not self.secret else [])

    def conditions(self) -> list[Condition]:
        """Return all its conditions."""
        ready = self.usable and self.resolved.holds
        why = "Programmed" if ready else "Invalid"
        return [self.accepted, self.resolved, self.conflict, (yes if ready else no)("Programmed", why)]


@dataclass(slots=True)
class Gate:
    """A Gateway of ours."""

    kept: Kept
    listeners: list[Listener]


def translate(objects: Objects, settings: KubernetesSettings, into: Translation) -> None:
    """Add what all gateways of ours, and the routes that attach to them, ask for."""
    from coupler.registrator.sources.kubernetes import gateway_routes  # noqa: PLC0415 (it builds on this module)

    classes = [entry for entry in objects.of("GatewayClass") if entry.spec.get("controllerName") == settings.controller]
    for entry in classes:
        _class_status(entry, into)
    names = {entry.about.name for entry in classes}
    gates = [
        _gate(entry, objects, settings, into)
        for entry in objects.of("Gateway")
        if entry.spec.get("gatewayClassName") in names
    ]
    gateway_routes.translate(gates, objects, settings, into)
    for gate in gates:
        _gate_status(gate, settings, into)


def _class_status(entry: Kept, into: Translation) -> None:
    observed = entry.status.get("conditions") or []
    if entry.spec.get("parametersRef"):
        condition = no("Accepted", "InvalidParameters", "parametersRef: there are no parameters")
    else:
        condition = yes("Accepted", "Accepted")
    wanted = written([condition], observed, entry.generation)
    if not same(observed, wanted):
        path = f"{entry.about.api_path}/gatewayclasses/{entry.about.name}/status"
        into.wishes.append(Wish(entry.about, path, {"status": {"conditions": wanted}}))


def _gate(entry: Kept, objects: Objects, settings: KubernetesSettings, into: Translation) -> Gate:
    listeners = [
        Listener(
            one["name"],
            one.get("protocol") or "",
            one.get("port") or 0,
            (one.get("hostname") or "").lower(),
            one,
        )
        for one in entry.spec.get("listeners") or ()
    ]
    gate = Gate(entry, listeners)
    for listener in listeners:
        _accept(listener, settings)
        if entry.spec.get("addresses"):
            listener.accepted = no("Accepted", "Pending", "the Gateway is not accepted")
        _conflict(listener, listeners)
        _kinds(listener)
        if listener.protocol == "HTTPS":
            _certificate(gate, listener, objects)
        for wrong in listener.wrong():
            into.complain(entry.about, f"listener {listener.name}: {wrong.reason}: {wrong.message}")
        if listener.secret and listener.usable:
            into.hosts.append(HostClaim(entry.about, entry.created, listener.hostname, listener.secret))
    return gate


def _accept(listener: Listener, settings: KubernetesSettings) -> None:
    def refuse(reason: str, message: str) -> None:
        listener.accepted = no("Accepted", reason, message)

    own = {"HTTP": settings.http_ports, "HTTPS": settings.https_ports}
    if listener.protocol not in KINDS:
        refuse("UnsupportedProtocol", f"{listener.protocol} is not supported; {', '.join(KINDS)} are")
    elif listener.protocol in own and listener.port not in own[listener.protocol]:
        ports = ", ".join(map(str, sorted(own[listener.protocol]))) or "no port"
        refuse("PortUnavailable", f"the balancer listens for {listener.protocol} on {ports}, not on {listener.port}")
    elif listener.protocol == "TCP" and listener.port in settings.http_ports | settings.https_ports:
        refuse("PortUnavailable", f"port {listener.port} is the balancer's for HTTP")
    elif (listener.spec.get("tls") or {}).get("mode", "Terminate") != "Terminate":
        refuse("UnsupportedValue", "tls.mode: only Terminate is supported")
    elif (listener.spec.get("tls") or {}).get("frontendValidation"):
        refuse("UnsupportedValue", "tls.frontendValidation is not supported")


def _conflict(listener: Listener, listeners: list[Listener]) -> None:
    for other in listeners:
        if other is listener or other.port != listener.port:
            continue
        if other.protocol != listener.protocol:
            listener.conflict = yes("Conflicted", "ProtocolConflict", f"{other.name} has the port too")
        elif other.hostname == listener.hostname:
            listener.conflict = yes("Conflicted", "HostnameConflict", f"{other.name} takes the same")


def supported_kinds(listener: Listener) -> list[Json]:
    """Return the kinds of routes that a listener takes, as its status lists them."""
    ours = KINDS.get(listener.protocol)
    wanted = (listener.spec.get("allowedRoutes") or {}).get("kinds")
    allowed = not wanted or any(entry.get("kind") == ours for entry in wanted)
    return [{"group": GROUP, "kind": ours}] if ours and allowed else []


def _kinds(listener: Listener) -> None:
    wanted = (listener.spec.get("allowedRoutes") or {}).get("kinds") or ()
    bad = [
        str(entry.get("kind"))
        for entry in wanted
        if (entry.get("group", GROUP), entry.get("kind")) != (GROUP, KINDS.get(listener.protocol))
    ]
    if bad:
        message = f"routes of kind {', '.join(bad)} cannot attach to {listener.protocol}"
        listener.resolved = no("ResolvedRefs", "InvalidRouteKinds", message)


def _certificate(gate: Gate, listener: Listener, objects: Objects) -> None:
    def refuse(reason: str, message: str) -> None:
        listener.resolved = no("ResolvedRefs", reason, message)

    refs = (listener.spec.get("tls") or {}).get("certificateRefs") or []
    if len(refs) != 1:
        refuse("InvalidCertificateRef", f"there are {len(refs)} certificateRefs; exactly one is supported")
        return
    ref, namespace = refs[0], refs[0].get("namespace") or gate.kept.about.namespace
    name = ref.get("name") or ""
    if (ref.get("group") or "", ref.get("kind") or "Secret") != ("", "Secret"):
        refuse("InvalidCertificateRef", f"a certificate of kind {ref.get('kind')} is not supported, a Secret is")
        return
    if not objects.granted((GROUP, "Gateway", gate.kept.about.namespace), ("", "Secret", namespace, name)):
        refuse("RefNotPermitted", f"no ReferenceGrant in {namespace} lets this Gateway use Secret {name}")
        return
    listener.secret = (namespace, name)
    problem = objects.secrets.problem(listener.secret)
    if problem:
        refuse("InvalidCertificateRef", problem)


def _gate_status(gate: Gate, settings: KubernetesSettings, into: Translation) -> None:
    kept, generation, observed = gate.kept, gate.kept.generation, gate.kept.status
    known = {entry.get("name"): entry for entry in observed.get("listeners") or ()}
    listeners = [
        {
            "name": listener.name,
            "attachedRoutes": listener.attached,
            "supportedKinds": supported_kinds(listener),
            "conditions": written(
                listener.conditions(), (known.get(listener.name) or {}).get("conditions") or (), generation
            ),
        }
        for listener in gate.listeners
    ]
    addresses = [
        {"type": "IPAddress" if is_address(text) else "Hostname", "value": text} for text in settings.published
    ]
    conditions = written(_gate_conditions(gate), observed.get("conditions") or (), generation)
    wanted = {"addresses": addresses, "conditions": conditions, "listeners": listeners}
    if not all(same(observed.get(name), wanted[name]) for name in wanted):
        path = f"{kept.about.api_path}/namespaces/{kept.about.namespace}/gateways/{kept.about.name}/status"
        into.wishes.append(Wish(kept.about, path, {"metadata": {"resourceVersion": kept.version}, "status": wanted}))


def _gate_conditions(gate: Gate) -> list[Condition]:
    if gate.kept.spec.get("addresses"):
        why = "spec.addresses: addresses are those of the balancer, and cannot be chosen"
        return [
            no("Accepted", "UnsupportedAddress", why),
            no("Programmed", "Invalid", why),
        ]
    bad = [listener.name for listener in gate.listeners if not (listener.usable and listener.resolved.holds)]
    words = f"see the conditions of {', '.join(bad)}" if bad else ""
    some = len(bad) < len(gate.listeners)
    say = yes if some else no
    return [
        say("Accepted", "Accepted" if not bad else "ListenersNotValid", words),
        say("Programmed", "Programmed" if some else "Invalid", words),
    ]
