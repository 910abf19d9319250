"""Kubernetes as a source: collections followed, objects kept in a small form, and what they come to.

A change of endpoints touches only the backends that have them. Anything else translates all objects anew: they are
few beside the endpoints. What arrives in one turn of the loop is taken together.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from coupler.registrator.model import Offer
from coupler.registrator.sources import Change, SourceError
from coupler.registrator.sources.kubernetes import announced, ingress, loadbalancer, pods
from coupler.registrator.sources.kubernetes.client import ApiError
from coupler.registrator.sources.kubernetes.feeds import Feed, Told
from coupler.registrator.sources.kubernetes.objects import keep, key_of, uid_of
from coupler.registrator.sources.kubernetes.plan import OF_PODS, Group, Translation
from coupler.registrator.sources.kubernetes.pods import Pods, read_pod
from coupler.registrator.sources.kubernetes.reflector import Collection, Reflector
from coupler.registrator.sources.kubernetes.resolve import Resolution, backend_of, hosts_of, resolve_claims
from coupler.registrator.sources.kubernetes.secrets import Secrets
from coupler.registrator.sources.kubernetes.services import (
    Service,
    Slices,
    changed_at,
    read_endpoints,
    read_service,
    read_slice,
    resolve,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from coupler.registrator.model import Backend, Certificate, Endpoint, Problem
    from coupler.registrator.sources.kubernetes.client import ApiClient
    from coupler.registrator.sources.kubernetes.objects import Json, Kept, Key
    from coupler.registrator.sources.kubernetes.scope import Scope
    from coupler.registrator.sources.kubernetes.status import StatusWriter

T = TypeVar("T")
_CORE, _DISCOVERY, _NETWORKING = "/api/v1", "/apis/discovery.k8s.io/v1", "/apis/networking.k8s.io/v1"


class Kubernetes:
    """A source. `status` is told what should be written; without it nothing ever is. `tunables` are a reflector's."""

    name = "kubernetes"

    def __init__(self, client: ApiClient, scope: Scope, status: StatusWriter | None = None, **tunables: object) -> None:
        self._client, self._scope, self._status, self._tunables = client, scope, status, tunables
        self._pods = Pods(scope.prefix)
        self._outlines: dict[Group, object] = {}
        self._services: dict[Key, Service] = {}
        self._slices = Slices()
        self._ingresses: dict[Key, Kept] = {}
        self._classes: dict[Key, Kept] = {}
        self._secrets = Secrets()
        self._given: dict[Key, str] = {}  # addresses of the pool
        self._translation = Translation()
        self._resolution = Resolution()
        self._backends: dict[str, Backend] = {}
        self._offer = Offer()
        self._told = Told()
        self._notify: Callable[[Change], None] | None = None
        self._drain_timer: asyncio.TimerHandle | None = None
        self._reflectors: list[Reflector] = []
        self._of_secrets: dict[Key, tuple[Reflector, asyncio.Task[None]]] = {}
        self._slice_reflectors: list[Reflector] = []
        self._fallback_started = False
        self._failed: asyncio.Future[None] | None = None

    @property
    def synced(self) -> bool:
        """Whether everything that is followed was read once."""
        reflectors = [*self._reflectors, *(reflector for reflector, _ in self._of_secrets.values())]
        waiting = any(reflector.absent for reflector in self._slice_reflectors) and not self._fallback_started
        return bool(reflectors) and all(reflector.synced for reflector in reflectors) and not waiting

    @property
    def problem(self) -> str | None:
        """Why a collection is not up to date now, with its name."""
        reflectors = [*self._reflectors, *(reflector for reflector, _ in self._of_secrets.values())]
        found = (f"{r.collection.resource}: {r.problem}" for r in reflectors if r.problem and not r.absent)
        return next(found, None) or (self._status.problem if self._status else None)

    def offer(self) -> Offer:
        """Return what the objects come to."""
        return self._offer

    async def run(self, notify: Callable[[Change], None]) -> None:
        """Follow every collection, for ever."""
        self._notify = notify
        self._failed = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.TaskGroup() as group:
                for collection, feed in self._feeds():
                    reflector = self._reflector(collection, feed)
                    self._reflectors.append(reflector)
                    if collection.resource == "endpointslices":
                        self._slice_reflectors.append(reflector)
                    group.create_task(reflector.run(), name=f"follow {collection.path}")
                if self._slice_reflectors:
                    group.create_task(self._fall_back(group))
                if self._status:
                    group.create_task(self._status.run())
                await self._failed
        finally:
            self._notify = None
            if self._drain_timer:
                self._drain_timer.cancel()
            for _, task in self._of_secrets.values():
                task.cancel()

    async def confirm(self) -> None:
        """Read everything once more, from the quorum of the store. Raises SourceError."""
        try:
            for reflector in [*self._reflectors, *(reflector for reflector, _ in self._of_secrets.values())]:
                if not reflector.absent:
                    await reflector.relist()
        except ApiError as error:
            raise SourceError("the API server does not give a second list", f"{error.what}: {error.why}") from error
        self._flush(relisted=True)

    def _reflector(self, collection: Collection, feed: Feed) -> Reflector:
        return Reflector(self._client, collection, feed, **self._tunables)  # type: ignore[arg-type]

    def _feeds(self) -> list[tuple[Collection, Feed]]:
        scope = self._scope
        wanted: list[tuple[str, str, Callable[[str | None], Feed], str]] = []
        if scope.pods is not None:
            wanted.append((_CORE, "pods", self._feed_of_pods, scope.pods))
        if scope.services or scope.ingress or scope.load_balancer:
            wanted.append((_CORE, "services", self._feed_of_services, ""))
            wanted.append((_DISCOVERY, "endpointslices", self._feed_of_slices, ""))
        if scope.ingress:
            wanted.append((_NETWORKING, "ingresses", self._feed_of_ingresses, ""))
        found = [
            (Collection(api, resource, namespace, selector), feed(namespace))
            for api, resource, feed, selector in wanted
            for namespace in scope.namespaces or (None,)
        ]
        if scope.ingress:
            found.append((Collection(_NETWORKING, "ingressclasses"), self._feed_of_classes(None)))
        return found

    async def _fall_back(self, group: asyncio.TaskGroup) -> None:
        """Follow Endpoints where the server has no slices."""
        while not all(reflector.synced for reflector in self._slice_reflectors):
            await asyncio.sleep(0.02)
        if not any(reflector.absent for reflector in self._slice_reflectors):
            return
        for namespace in self._scope.namespaces or (None,):
            reflector = self._reflector(Collection(_CORE, "endpoints", namespace), self._feed_of_endpoints(namespace))
            self._reflectors.append(reflector)
            group.create_task(reflector.run())
        self._fallback_started = True

    def _feed_of_pods(self, namespace: str | None) -> Feed:
        return Feed(self._told, self._wake, namespace, self._pods.keys, self._put_pod, self._drop_pod, self._pod_since)

    def _feed_of_services(self, namespace: str | None) -> Feed:
        read = partial(read_service, prefixes=self._scope.prefixes)
        return self._feed_of(self._services, read, lambda service: service.kept.about.uid, namespace)

    def _feed_of_slices(self, namespace: str | None) -> Feed:
        def put(item: Json) -> tuple[frozenset[Group], bool]:
            return self._slices.put(key_of(item), uid_of(item), read_slice(item)), False

        return Feed(self._told, self._wake, namespace, self._slices.keys, put, self._drop_slice, changed_at)

    def _feed_of_endpoints(self, namespace: str | None) -> Feed:
        def put(item: Json) -> tuple[frozenset[Group], bool]:
            return self._slices.put(key_of(item), uid_of(item), read_endpoints(item)), False

        return Feed(self._told, self._wake, namespace, self._slices.keys, put, self._drop_slice, changed_at)

    def _feed_of_ingresses(self, namespace: str | None) -> Feed:
        prefixes = (*self._scope.prefixes, ingress.CLASS_ANNOTATION)
        read = partial(keep, api="networking.k8s.io/v1", kind="Ingress", prefixes=prefixes)
        return self._feed_of(self._ingresses, read, lambda kept: kept.about.uid, namespace)

    def _feed_of_classes(self, namespace: str | None) -> Feed:
        prefixes = (ingress.DEFAULT_ANNOTATION,)
        read = partial(keep, api="networking.k8s.io/v1", kind="IngressClass", prefixes=prefixes)
        return self._feed_of(self._classes, read, lambda kept: kept.about.uid, namespace)

    def _feed_of(
        self, objects: dict[Key, T], read: Callable[[Json], T], uid: Callable[[T], str], namespace: str | None
    ) -> Feed:
        def put(item: Json) -> tuple[frozenset[Group], bool]:
            key, new = key_of(item), read(item)
            before = objects.get(key)
            objects[key] = new
            return frozenset(), before != new

        def drop(key: Key, gone: str | None) -> tuple[frozenset[Group], bool]:
            if key not in objects or gone not in {None, uid(objects[key])}:
                return frozenset(), False
            del objects[key]
            return frozenset(), True

        return Feed(self._told, self._wake, namespace, lambda: set(objects), put, drop, lambda _: None)

    def _put_pod(self, item: Json) -> tuple[frozenset[Group], bool]:
        return self._pods_changed(self._pods.put(item))

    def _drop_pod(self, key: Key, uid: str | None) -> tuple[frozenset[Group], bool]:
        return self._pods_changed(self._pods.drop(key, uid))

    def _drop_slice(self, key: Key, uid: str | None) -> tuple[frozenset[Group], bool]:
        return self._slices.drop(key, uid), False

    def _pods_changed(self, groups: frozenset[Group]) -> tuple[frozenset[Group], bool]:
        """Return the groups, and whether one of them says something else of routes than before."""
        anew = False
        for group in groups:
            outline = self._pods.outline(group)
            anew = anew or outline != self._outlines.get(group)
            if outline is None:
                self._outlines.pop(group, None)
            else:
                self._outlines[group] = outline
        return groups, anew

    def _pod_since(self, item: Json) -> float | None:
        pod = read_pod(item, self._scope.prefix)
        return pod.since if pod else None

    def _wake(self) -> None:
        asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self, *, relisted: bool = False) -> None:
        """Bring the offer up to date with what was told, and pass it on."""
        told = self._told
        if not told.anything and not relisted:
            return
        groups, anew, since = told.take()
        relisted = relisted or told.was_relisted
        if anew or relisted:
            self._translate()
        else:
            ids = {id_ for group in groups for id_ in self._resolution.users.get(group.owner, ())}
            changed = frozenset(id_ for id_ in ids if self._rebuild(id_))
            if not changed:
                return
            self._compose(self._offer)
        if self._drain_timer is None or groups:
            self._plan_drains()
        if self._notify:
            names = None if anew or relisted else changed
            self._notify(Change(names, relisted, None if relisted else since))

    def _translate(self) -> None:
        translation, scope = Translation(), self._scope
        if scope.pods is not None:
            pods.translate(self._pods, translation)
        if scope.services:
            announced.translate(self._services, scope.prefix, translation)
        if scope.load_balancer:
            loadbalancer.translate(self._services, scope, self._given, translation)
        if scope.ingress:
            ingress.translate(self._ingresses.values(), self._classes.values(), self._services, scope, translation)
        self._translation = translation
        self._resolution = resolve_claims(translation)
        self._follow_secrets({claim.secret for claim in translation.hosts if claim.secret})
        for id_ in self._backends.keys() - self._resolution.plans.keys():
            del self._backends[id_]
        for id_ in self._resolution.plans:
            self._rebuild(id_)
        hosts = hosts_of(translation, self._certificate)
        self._compose(Offer((), self._resolution.routes, self._resolution.tcp_routes, hosts, self._problems()))
        if self._status and self.synced:  # before, what is missing may only not be read yet
            self._status.want(translation.wishes, translation.complaints)

    def _problems(self) -> tuple[Problem, ...]:
        return tuple(complaint.problem for complaint in self._translation.complaints)

    def _compose(self, rest: Offer) -> None:
        backends = tuple(self._backends.values())
        self._offer = Offer(backends, rest.routes, rest.tcp_routes, rest.hosts, rest.problems)

    def _rebuild(self, id_: str) -> bool:
        """Make a backend anew; return whether it is another one than before."""
        before = self._backends.get(id_)
        known = {endpoint.uid: endpoint for endpoint in before.endpoints} if before else {}
        made = backend_of(self._resolution.plans[id_], partial(self._endpoints, known=known))
        if made == before:
            return False
        self._backends[id_] = made
        return True

    def _endpoints(self, group: Group, weight: int, known: dict[str, Endpoint]) -> tuple[Endpoint, ...]:
        if group.kind == OF_PODS:
            return self._pods.endpoints(group, time.time(), known)
        key = group.namespace, group.name
        service = self._services.get(key)
        return resolve(service, group.port, self._slices.of(key), weight, known) if service else ()

    def _plan_drains(self) -> None:
        """Look again when the next terminating pod's time is over."""
        if self._drain_timer:
            self._drain_timer.cancel()
            self._drain_timer = None
        now = time.time()
        upcoming = self._pods.next_end(now)
        if upcoming is not None:
            self._drain_timer = asyncio.get_running_loop().call_later(upcoming[0] - now, self._drained, upcoming[1])

    def _drained(self, group: Group) -> None:
        self._drain_timer = None
        self._told.tell(frozenset((group,)), anew=False, since=None)
        self._flush()

    def _follow_secrets(self, wanted: set[Key]) -> None:
        for key in self._of_secrets.keys() - wanted:
            self._of_secrets.pop(key)[1].cancel()
        self._secrets.forget(wanted)
        for key in wanted - self._of_secrets.keys():
            self._follow_secret(key)

    def _follow_secret(self, key: Key) -> None:
        def put(item: Json) -> tuple[frozenset[Group], bool]:
            return frozenset(), self._secrets.put(key, item)

        def drop(_: Key, __: str | None) -> tuple[frozenset[Group], bool]:
            return frozenset(), self._secrets.put(key, None)

        def keys() -> set[Key]:
            return {key}

        collection = Collection(_CORE, "secrets", key[0], field_selector=f"metadata.name={key[1]}")
        reflector = self._reflector(collection, Feed(self._told, self._wake, key[0], keys, put, drop, lambda _: None))
        task = asyncio.get_running_loop().create_task(reflector.run(), name=f"follow Secret {key[0]}/{key[1]}")
        task.add_done_callback(self._ended)
        self._of_secrets[key] = reflector, task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) and self._failed and not self._failed.done():
            self._failed.set_exception(error)

    def _certificate(self, key: Key) -> Certificate | str | None:
        wrong = self._secrets.wrong(key)
        good = self._secrets.certificate(key)
        if wrong and good is None:
            return wrong
        if wrong:
            for claim in self._translation.hosts:
                if claim.secret == key:
                    said = f"Secret {key[0]}/{key[1]}: {wrong}; the certificate before it stays in use"
                    self._translation.complain(claim.about, said)
        return good
