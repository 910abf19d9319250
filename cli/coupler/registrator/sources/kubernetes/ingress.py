"""Ingress v1: rules, certificates, default backends, status.

Source: https://kubernetes.io/docs/reference/kubernetes-api/service-resources/ingress-v1/.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from coupler.registrator.model import Route
from coupler.registrator.sources.kubernetes.annotations import INGRESS, Asked, read
from coupler.registrator.sources.kubernetes.announced import add_host
from coupler.registrator.sources.kubernetes.loadbalancer import shown
from coupler.registrator.sources.kubernetes.objects import Wish
from coupler.registrator.sources.kubernetes.plan import Part, Plan, Translation
from coupler.registrator.sources.kubernetes.services import find

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from coupler.registrator.sources.kubernetes.objects import Json, Kept, Key
    from coupler.registrator.sources.kubernetes.services import Service
    from coupler.registrator.sources.kubernetes.settings import KubernetesSettings

CLASS_ANNOTATION = "kubernetes.io/ingress.class"
DEFAULT_ANNOTATION = "ingressclass.kubernetes.io/is-default-class"
_PATH_TYPES = {"Exact": True, "Prefix": False, "ImplementationSpecific": False}


def classes(objects: Iterable[Kept], settings: KubernetesSettings) -> tuple[frozenset[str], bool]:
    """Return the names of the classes that are ours, and whether an Ingress without class is ours."""
    ours = [entry for entry in objects if entry.spec.get("controller") == settings.controller]
    default = any(dict(entry.annotations).get(DEFAULT_ANNOTATION) == "true" for entry in ours)
    return frozenset((settings.ingress_class, *(entry.about.name for entry in ours))), default


def is_ours(ingress: Kept, names: frozenset[str], default: bool) -> bool:
    """Return whether an Ingress is ours: by its field, else by the old annotation, else by the default class."""
    name = ingress.spec.get("ingressClassName") or dict(ingress.annotations).get(CLASS_ANNOTATION)
    return name in names if name else default


def translate(
    ingresses: Iterable[Kept],
    ingress_classes: Iterable[Kept],
    services: Mapping[Key, Service],
    settings: KubernetesSettings,
    into: Translation,
) -> None:
    """Add what all Ingresses that are ours ask for."""
    names, default = classes(ingress_classes, settings)
    for ingress in ingresses:
        if is_ours(ingress, names, default):
            _Ingress(ingress, services, settings, into).translate()


class _Ingress:
    """One Ingress while it is translated."""

    def __init__(
        self, ingress: Kept, services: Mapping[Key, Service], settings: KubernetesSettings, into: Translation
    ) -> None:
        self.ingress, self.services, self.settings, self.into = ingress, services, settings, into
        self.about, self.created = ingress.about, ingress.created
        own = tuple(pair for pair in ingress.annotations if pair[0].startswith(settings.prefixes))
        self.annotations = own
        self.asked = read(own, settings.prefix, INGRESS)

    def translate(self) -> None:
        for text in self.asked.complaints:
            self.into.complain(self.about, text)
        if not self.asked.broken:
            for host, path, exact, backend in self._paths():
                self._route(host, path, exact, backend)
            self._hosts()
        self._status()

    def _paths(self) -> Iterator[tuple[str, str, bool, Json]]:
        """Yield host, path, exact and backend of all rules; what no rule takes goes to the default backend."""
        default = self.ingress.spec.get("defaultBackend")
        if default:
            yield "", "/", False, default
        for rule in self.ingress.spec.get("rules") or ():
            host = rule.get("host") or ""
            paths = (rule.get("http") or {}).get("paths") or ()
            for entry in paths:
                kind = entry.get("pathType") or "ImplementationSpecific"
                if kind not in _PATH_TYPES:
                    self.into.complain(self.about, f"pathType {kind} is not known; known are {', '.join(_PATH_TYPES)}")
                    continue
                yield host, entry.get("path") or "/", _PATH_TYPES[kind], entry.get("backend") or {}
            if not paths and host and default:
                yield host, "/", False, default

    def _route(self, host: str, path: str, exact: bool, backend: Json) -> None:
        service = backend.get("service")
        if not service:
            kind = (backend.get("resource") or {}).get("kind")
            self.into.complain(self.about, f"{host}{path}: a backend of kind {kind} is not supported, a Service is")
            return
        number = service.get("port") or {}
        port = number.get("name") or number.get("number")
        id_ = self._plan((self.about.namespace, service.get("name") or ""), port)
        name = f"{self.about.namespace}/{self.about.name}:{host or '*'}{path}{'$' if exact else ''}"
        asked = self.asked
        headers = (asked.canary_header,) if asked.canary_header else ()
        make = partial(Route, name, id_, host, path, exact, headers, asked.priority, asked.middlewares)
        self.into.claim(self.about, self.created, make, asked.canary_percent)

    def _plan(self, key: Key, port: str | int | None) -> str:
        """Add the backend: the Service's own where this Ingress asks for nothing else, otherwise one of its own.

        A Service that is not there has a backend too, without endpoints: its requests fail, and go nowhere else.
        """
        found = find(self.services, key, port)
        if found.why:
            self.into.complain(self.about, found.why)
        theirs = found.service.kept.annotations if found.service else ()
        plain = read(theirs, self.settings.prefix, "Service")
        merged = self._asked(theirs)
        own = merged.policy != plain.policy
        name = f"{found.name}@{self.about.name}" if own else found.name
        return self.into.plan(Plan(name, (Part(1, found.group),), policy=merged.policy, weight=plain.weight))

    def _asked(self, base: tuple[tuple[str, str], ...]) -> Asked:
        return read(self.annotations, self.settings.prefix, INGRESS, base) if base else self.asked

    def _hosts(self) -> None:
        """Add certificates. An entry without hosts is for those of the rules."""
        of_rules = [rule["host"] for rule in self.ingress.spec.get("rules") or () if rule.get("host")]
        secrets: dict[str, str | None] = dict.fromkeys(of_rules)
        for entry in self.ingress.spec.get("tls") or ():
            for host in entry.get("hosts") or of_rules:
                secrets[host] = entry.get("secretName") or secrets.get(host)
        for host, secret in secrets.items():
            add_host(self.asked, host, secret, self.about, self.created, self.into)

    def _status(self) -> None:
        wanted = self.settings.reached()
        if wanted and shown(self.ingress.status) != wanted:
            path = f"{self.about.api_path}/namespaces/{self.about.namespace}/ingresses/{self.about.name}/status"
            self.into.wishes.append(Wish(self.about, path, {"status": {"loadBalancer": {"ingress": wanted}}}))
