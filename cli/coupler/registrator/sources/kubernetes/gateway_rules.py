"""Rules of HTTPRoutes: matches, filters, references to backends; what of them is not supported, in words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coupler.registrator.model import Mode, ModelError, Policy, Redirect, Route
from coupler.registrator.sources.kubernetes.annotations import ROUTE, SERVICE, read
from coupler.registrator.sources.kubernetes.announced import for_tcp
from coupler.registrator.sources.kubernetes.conditions import Condition, no, yes
from coupler.registrator.sources.kubernetes.gateway import GROUP
from coupler.registrator.sources.kubernetes.plan import Part, Plan
from coupler.registrator.sources.kubernetes.services import Found, find
from coupler.registrator.sources.kubernetes.values import duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coupler.registrator.sources.kubernetes.gateway import Objects
    from coupler.registrator.sources.kubernetes.objects import Json, Kept
    from coupler.registrator.sources.kubernetes.settings import KubernetesSettings

_RULE_FIELDS = frozenset(("name", "matches", "filters", "backendRefs", "timeouts"))
_MATCH_FIELDS = frozenset(("path", "headers"))
_PATHS = {"PathPrefix": False, "Exact": True}


class UnsupportedError(ValueError):
    """A route asks for what we cannot do; the text says what."""


@dataclass(frozen=True, slots=True)
class Match:
    """One match of a rule, and the backend that it leads to."""

    id: str
    path: str
    exact: bool
    headers: tuple[tuple[str, str], ...]
    plan: Plan

    def route(self, host: str, backend: str) -> Route:
        """Return the route for a host. Raises ModelError."""
        return Route(f"{self.id}:{host or '*'}{self.path}", backend, host, self.path, self.exact, self.headers)


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule that can be carried out."""

    matches: tuple[Match, ...]


def only_redirects(rule: Rule) -> bool:
    """Return whether a rule does nothing but send all requests to TLS."""
    return all(
        (match.path, match.exact, match.headers) == ("/", False, ())
        and match.plan.policy.redirect in {Redirect("https", None, port, None, status) for port, status in _TO_TLS}
        for match in rule.matches
    )


_TO_TLS = [(port, status) for port in (None, 443) for status in (301, 302, 303, 307, 308)]


class Backends:
    """What the rules of one route refer to, and what is wrong with it."""

    def __init__(self, kept: Kept, objects: Objects, settings: KubernetesSettings) -> None:
        self.kept, self.objects, self.settings = kept, objects, settings
        self.complaints: list[str] = list(read(kept.annotations, settings.prefix, ROUTE).complaints)
        self._bad: list[tuple[str, str]] = []

    def resolved(self) -> Condition:
        """Return the condition ResolvedRefs."""
        if not self._bad:
            return yes("ResolvedRefs", "ResolvedRefs")
        return no("ResolvedRefs", self._bad[0][0], "; ".join(message for _, message in self._bad))

    def parts(self, refs: Sequence[Json]) -> tuple[tuple[Part, ...], str | None, Policy, int]:
        """Return the parts that references come to; and the name, policy and weight of a Service that stands alone."""
        parts, names = [], []
        policy, weight = Policy(), 100
        for ref in refs:
            share = ref.get("weight", 1)
            found = self._find(ref)
            parts.append(Part(share, found.group if found else None))
            if found:
                names.append(found.name)
                if found.service:
                    asked = read(found.service.kept.annotations, self.settings.prefix, SERVICE)
                    policy, weight = asked.policy, asked.weight
        alone = len(refs) == 1 and bool(names) and bool(parts[0].share)
        return tuple(parts), names[0] if alone else None, policy if alone else Policy(), weight if alone else 100

    def _find(self, ref: Json) -> Found | None:
        group, kind = ref.get("group") or "", ref.get("kind") or "Service"
        name, namespace = ref.get("name") or "", ref.get("namespace") or self.kept.about.namespace
        if (group, kind) != ("", "Service"):
            self._bad.append(("InvalidKind", f"a backend of kind {kind} is not supported, a Service is"))
            return None
        source = (GROUP, self.kept.about.kind, self.kept.about.namespace)
        if not self.objects.granted(source, (group, kind, namespace, name)):
            self._bad.append(
                ("RefNotPermitted", f"no ReferenceGrant in {namespace} lets this route use Service {name}")
            )
            return None
        found = find(self.objects.services, (namespace, name), ref.get("port"))
        if found.why:
            self._bad.append(("BackendNotFound", found.why))
        return found

    def policy(self, alone: str | None, refs: Sequence[Json]) -> Policy:
        """Return the policy of a rule before its filters: the Service's where it stands alone, and our annotations."""
        theirs: tuple[tuple[str, str], ...] = ()
        if alone:
            ref = refs[0]
            service = self.objects.services.get((ref.get("namespace") or self.kept.about.namespace, ref["name"]))
            theirs = service.kept.annotations if service else ()
        return read(self.kept.annotations, self.settings.prefix, ROUTE, theirs).policy

    def tcp_plan(self, refs: Sequence[Json]) -> Plan:
        """Return the backend of a TCPRoute."""
        parts, alone, policy, weight = self.parts(refs)
        about = self.kept.about
        name = alone or f"{about.namespace}/{about.name}#0"
        return Plan(f"{name}/tcp", parts, Mode.TCP, for_tcp(policy), weight)


def read_rules(kept: Kept, backends: Backends) -> tuple[list[Rule], str | None]:
    """Return the rules of an HTTPRoute; or what of it is not supported."""
    rules = []
    try:
        for index, rule in enumerate(kept.spec.get("rules") or [{}]):
            rules.append(_rule(kept, index, rule, backends))
    except (UnsupportedError, ModelError) as error:
        return [], error.what if isinstance(error, ModelError) else str(error)
    return rules, None


def _rule(kept: Kept, index: int, rule: Json, backends: Backends) -> Rule:
    where = f"rules[{index}]"
    _only(rule, _RULE_FIELDS, where)
    refs = rule.get("backendRefs") or ()
    if any(ref.get("filters") for ref in refs):
        raise UnsupportedError(f"{where}.backendRefs: filters of one backend are not supported, those of a rule are")
    parts, alone, base, weight = backends.parts(refs)
    policy = _timeouts(rule.get("timeouts") or {}, backends.policy(alone, refs), where)
    id_ = f"{kept.about.namespace}/{kept.about.name}#{index}"
    made = []
    for number, match in enumerate(rule.get("matches") or [{}]):
        path, exact, headers = _match(match, f"{where}.matches[{number}]")
        filtered = _filters(rule.get("filters") or (), policy, path, exact, where)
        own = f"{id_}.{number}" if filtered.replace_prefix else id_
        name = alone if alone and filtered == base else own
        made.append(Match(f"{id_}.{number}", path, exact, headers, Plan(name, parts, policy=filtered, weight=weight)))
    return Rule(tuple(made))


def _only(mapping: Json, known: frozenset[str], where: str) -> None:
    other = sorted(name for name, entry in mapping.items() if name not in known and entry)
    if other:
        raise UnsupportedError(f"{where}.{other[0]} is not supported; supported are {', '.join(sorted(known))}")


def _match(match: Json, where: str) -> tuple[str, bool, tuple[tuple[str, str], ...]]:
    _only(match, _MATCH_FIELDS, where)
    path = match.get("path") or {}
    kind = path.get("type") or "PathPrefix"
    if kind not in _PATHS:
        raise UnsupportedError(f"{where}.path: type {kind} is not supported; {', '.join(_PATHS)} are")
    headers: dict[str, str] = {}
    for header in match.get("headers") or ():
        if (header.get("type") or "Exact") != "Exact":
            raise UnsupportedError(f"{where}.headers: type {header['type']} is not supported, Exact is")
        headers.setdefault(header["name"].lower(), header["value"])  # the API: of equal names the first counts
    route = Route("match", "match", path=path.get("value") or "/", exact=_PATHS[kind], headers=tuple(headers.items()))
    return route.path, route.exact, route.headers


def _timeouts(timeouts: Json, policy: Policy, where: str) -> Policy:
    _only(timeouts, frozenset(("backendRequest",)), f"{where}.timeouts")
    text = timeouts.get("backendRequest")
    if not text:
        return policy
    try:
        seconds = duration(text)
    except ValueError:
        raise UnsupportedError(
            f"{where}.timeouts: {text!r} is not supported; one number with ms, s, m or h is"
        ) from None
    return replace(policy, read_timeout=seconds) if seconds else policy


def _filters(filters: Sequence[Json], policy: Policy, path: str, exact: bool, where: str) -> Policy:
    for entry in filters:
        kind = entry.get("type")
        match kind:
            case "RequestHeaderModifier":
                policy = _headers(entry.get("requestHeaderModifier") or {}, policy, where)
            case "RequestRedirect":
                policy = replace(policy, redirect=_redirect(entry.get("requestRedirect") or {}, where))
            case "URLRewrite":
                policy = replace(policy, replace_prefix=_rewrite(entry.get("urlRewrite") or {}, path, exact, where))
            case _:
                raise UnsupportedError(
                    f"{where}.filters: {kind} is not supported; "
                    "RequestHeaderModifier, RequestRedirect and URLRewrite are"
                )
    return policy


def _headers(modifier: Json, policy: Policy, where: str) -> Policy:
    _only(modifier, frozenset(("set", "remove")), f"{where}.filters.requestHeaderModifier")
    return replace(
        policy,
        set_headers=tuple((header["name"], header["value"]) for header in modifier.get("set") or ()),
        remove_headers=tuple(modifier.get("remove") or ()),
    )


def _redirect(redirect: Json, where: str) -> Redirect:
    path = redirect.get("path") or {}
    if path and path.get("type") != "ReplaceFullPath":
        raise UnsupportedError(
            f"{where}.filters.requestRedirect: {path.get('type')} is not supported, ReplaceFullPath is"
        )
    return Redirect(
        redirect.get("scheme"),
        redirect.get("hostname"),
        redirect.get("port"),
        path.get("replaceFullPath"),
        redirect.get("statusCode") or 302,
    )


def _rewrite(rewrite: Json, path: str, exact: bool, where: str) -> tuple[str, str]:
    _only(rewrite, frozenset(("path",)), f"{where}.filters.urlRewrite")
    change = rewrite.get("path") or {}
    if change.get("type") != "ReplacePrefixMatch" or exact:
        raise UnsupportedError(
            f"{where}.filters.urlRewrite: only ReplacePrefixMatch is supported, and only where PathPrefix matches"
        )
    return path, change.get("replacePrefixMatch") or "/"
