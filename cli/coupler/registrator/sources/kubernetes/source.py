"""Kubernetes as a source of the registrator: collections are followed, what they say becomes the offer.

Endpoints are told of at once, by the ids of their backends. Everything else is told of as "anything may have changed".
Until every collection was read once, nothing is offered: half a cluster would be a wrong one.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coupler.registrator.model import Offer
from coupler.registrator.sources import Change, SourceError
from coupler.registrator.sources.kubernetes.client import ApiError
from coupler.registrator.sources.kubernetes.objects import Key, key_of, uid_of
from coupler.registrator.sources.kubernetes.reflector import Collection, Reflector
from coupler.registrator.sources.kubernetes.services import SERVICE_NAME, changed_at
from coupler.registrator.sources.kubernetes.status import Writer
from coupler.registrator.sources.kubernetes.trims import trim_of
from coupler.registrator.sources.kubernetes.world import ENDPOINTS, NOTHING, POD, SECRET, SERVICE, SLICE, Touch, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from coupler.registrator.sources.kubernetes.client import ApiClient
    from coupler.registrator.sources.kubernetes.objects import Json
    from coupler.registrator.sources.kubernetes.settings import KubernetesSettings

_COALESCE = 0.02
_NOT_FOUND, _FORBIDDEN, _UNAUTHORIZED = 404, 403, 401
_CORE, _DISCOVERY, _NETWORKING, _GATEWAY = (
    "/api/v1",
    "/apis/discovery.k8s.io",
    "/apis/networking.k8s.io",
    "/apis/gateway.networking.k8s.io",
)


@dataclass(slots=True)
class Followed:
    """One kind, of one namespace or of all, by the first of its versions that the server has."""

    kinds: tuple[str, ...]
    collections: tuple[Collection, ...]
    reflectors: list[Reflector] = field(default_factory=list)

    @property
    def synced(self) -> bool:
        """Whether all that there is was read once."""
        if any(reflector.synced and not reflector.absent for reflector in self.reflectors):
            return True
        return len(self.reflectors) == len(self.collections) and all(entry.synced for entry in self.reflectors)


def followed(settings: KubernetesSettings) -> list[Followed]:
    """Return what has to be followed, and no more: each needs a right."""
    found: list[Followed] = []

    def follow(kind: str, resource: str, *apis: str, cluster: bool = False, selector: str = "") -> None:
        for namespace in (None,) if cluster else settings.namespaces or (None,):
            collections = tuple(Collection(api, resource, namespace, selector) for api in apis)
            found.append(Followed((kind,) * len(apis), collections))

    if settings.pods is not None:
        follow(POD, "pods", _CORE, selector=settings.pods)
    if settings.services or settings.ingress or settings.gateway or settings.load_balancer:
        follow(SERVICE, "services", _CORE)
        for namespace in settings.namespaces or (None,):
            slices = [
                Collection(f"{_DISCOVERY}/{version}", "endpointslices", namespace, SERVICE_NAME)
                for version in ("v1", "v1beta1")
            ]
            old = Collection(_CORE, "endpoints", namespace)
            found.append(Followed((SLICE, SLICE, ENDPOINTS), (*slices, old)))
    if settings.ingress:
        follow("Ingress", "ingresses", f"{_NETWORKING}/v1")
        follow("IngressClass", "ingressclasses", f"{_NETWORKING}/v1", cluster=True)
    if settings.gateway:
        v1, beta, alpha = (f"{_GATEWAY}/{version}" for version in ("v1", "v1beta1", "v1alpha2"))
        follow("GatewayClass", "gatewayclasses", v1, beta, cluster=True)
        follow("Gateway", "gateways", v1, beta)
        follow("HTTPRoute", "httproutes", v1, beta)
        follow("TCPRoute", "tcproutes", v1, alpha)
        follow("ReferenceGrant", "referencegrants", v1, beta, alpha)
        follow("Namespace", "namespaces", _CORE, cluster=True)
    return found


class Feed:
    """Takes what one reflector says. What it has told of is its own to let go of, and nothing else."""

    def __init__(self, source: Kubernetes, kind: str, api: str) -> None:
        self._source, self._kind, self._own = source, kind, set[Key]()
        self._api = api.removeprefix("/apis/").removeprefix("/api/")

    def _note_api(self) -> None:
        if self._kind in self._source.world.apis:
            self._source.world.apis[self._kind] = self._api  # where its status is written to

    def replaced(self, objects: Iterable[Json]) -> None:
        """Take a whole list."""
        items = list(objects)
        if items:
            self._note_api()
        touch, self._own = self._source.world.replace(self._kind, items, self._own)
        self._source.told(touch, relisted=True)

    def changed(self, item: Json) -> None:
        """Take an object."""
        self._own.add(key_of(item))
        self._note_api()
        touch = self._source.world.put(self._kind, item)
        self._source.told(touch, since=self._since(item))

    def deleted(self, item: Json) -> None:
        """Let go of an object."""
        key = key_of(item)
        touch = self._source.world.drop(self._kind, key, uid_of(item))
        if touch:
            self._own.discard(key)
        self._source.told(touch)

    def _since(self, item: Json) -> float | None:
        if self._kind in {SLICE, ENDPOINTS}:
            return changed_at(item)
        pod = self._source.world.pods.get(key_of(item)) if self._kind == POD else None
        return pod.since if pod else None


class SecretFeed:
    """Takes what the watch of one Secret says."""

    def __init__(self, source: Kubernetes, key: Key) -> None:
        self._source, self._key = source, key

    def replaced(self, objects: Iterable[Json]) -> None:
        """Take the Secret, if it is there."""
        touch, found = NOTHING, False
        for item in objects:
            found = True
            touch |= self._source.world.put(SECRET, item)
        if not found:
            touch = self._source.world.drop(SECRET, self._key)
        self._source.told(touch, relisted=True)

    def changed(self, item: Json) -> None:
        """Take the Secret."""
        self._source.told(self._source.world.put(SECRET, item))

    def deleted(self, item: Json) -> None:
        """Note that it is gone."""
        self._source.told(self._source.world.drop(SECRET, key_of(item)))


class Kubernetes:
    """One cluster as a source: see the protocol `Source`.

    `may_write` says whether statuses and Events are ours to write now (elected, where several registrators run); with
    `dry_run` they never are. `tunables` go to the reflectors.
    """

    def __init__(
        self,
        settings: KubernetesSettings,
        client: ApiClient,
        *,
        name: str = "kubernetes",
        may_write: Callable[[], bool] = lambda: True,
        dry_run: bool = False,
        clock: Callable[[], float] = time.time,
        tunables: Mapping[str, object] | None = None,
    ) -> None:
        self.name = name
        self.world = World(settings)
        self.writer = Writer(client, may_write, dry_run=dry_run)
        self._client, self._clock = client, clock
        self._tunables = dict(tunables or {})
        self._followed = followed(settings)
        self._secrets: dict[Key, asyncio.Task[None]] = {}
        self._secret_problems: dict[Key, str] = {}
        self._notify: Callable[[Change], None] = lambda _: None
        self._tasks: asyncio.TaskGroup | None = None
        self._wake = asyncio.Event()
        self._complete = False

    @property
    def synced(self) -> bool:
        """Whether everything was read once, the certificates that are named included."""
        if not self._complete:
            return False
        self.offer()  # says which certificates are named
        return all(self.world.secrets.answered(key) for key in self.world.wanted)

    @property
    def problem(self) -> str | None:
        """Which collections are not up to date, and why; None if all are."""
        said = [
            f"{reflector.collection.resource}: {reflector.problem}"
            for entry in self._followed
            for reflector in entry.reflectors
            if reflector.problem is not None and not reflector.absent
        ]
        said += [f"Secret {key[0]}/{key[1]}: {why}" for key, why in sorted(self._secret_problems.items())]
        if not said and not self._complete:
            return "not every collection was read yet"
        return "; ".join(dict.fromkeys(said)) or None

    def offer(self) -> Offer:
        """Return what the cluster wants now; nothing before everything was read once."""
        return self.world.offer(self._clock()) if self._complete else Offer()

    async def run(self, notify: Callable[[Change], None]) -> None:
        """Follow the cluster for ever. Ends by cancellation."""
        self._notify = notify
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                for entry in self._followed:
                    self._begin(entry)
                tasks.create_task(self.writer.run())
                tasks.create_task(self._maintain())
        finally:
            self._tasks = None
            self._secrets.clear()

    async def confirm(self) -> None:
        """Read everything once more, by quorum. Raises SourceError where the server does not answer.

        One kind after another, so that no two long lists are in memory at once. Secrets are left out: no endpoint hangs
        on them, and one that may not be read must not hold others up.
        """
        for reflector in [reflector for entry in self._followed for reflector in entry.reflectors]:
            try:
                await reflector.relist()
            except (ApiError, OSError) as error:
                why = f"{error}: {error.why}" if isinstance(error, ApiError) else str(error)
                raise SourceError(f"{self.name}: {reflector.collection.resource} cannot be read again", why) from error

    def told(self, touch: Touch, *, relisted: bool = False, since: float | None = None) -> None:
        """Take note of what an object has changed, and tell who listens."""
        if relisted:
            self._alternate()
        if not self._complete:
            if all(entry.synced for entry in self._followed):
                self._complete = True
                self._wake.set()
                self._notify(Change(relisted=True))
            return
        if not touch:
            return
        self._wake.set()
        if touch.routes:
            self._notify(Change(relisted=relisted, since=since))
            return
        backends = self.world.backends_of(touch.groups)
        if backends:
            self._notify(Change(backends, relisted, since))

    def _begin(self, entry: Followed) -> None:
        """Follow the next version of a kind."""
        place = len(entry.reflectors)
        kind, collection = entry.kinds[place], entry.collections[place]
        reflector = self._reflector(collection, Feed(self, kind, collection.api), trim_of(kind))
        entry.reflectors.append(reflector)
        if self._tasks is not None:
            self._tasks.create_task(reflector.run())

    def _alternate(self) -> None:
        """Follow another version of a kind where the server does not have the one before."""
        for entry in self._followed:
            if entry.reflectors and entry.reflectors[-1].absent and len(entry.reflectors) < len(entry.collections):
                self._begin(entry)

    def _reflector(self, collection: Collection, feed: Feed | SecretFeed, trim: Callable[[Json], Json]) -> Reflector:
        return Reflector(self._client, collection, feed, trim=trim, **self._tunables)  # type: ignore[arg-type]

    async def _maintain(self) -> None:
        """Keep certificates followed and statuses written, and end the draining of pods whose time is over."""
        while True:
            self._wake.clear()
            if self._complete:
                self.offer()
                self._follow_secrets()
                if self.synced:
                    self.writer.want(self.world.wishes, self.world.complaints)
            ending = self.world.pods.next_end(self._clock())
            try:
                async with asyncio.timeout(ending[0] - self._clock() if ending else None):
                    await self._wake.wait()
            except TimeoutError:
                if ending:
                    self.told(self.world.touched(Touch(frozenset((ending[1],)))))
            await asyncio.sleep(_COALESCE)

    def _follow_secrets(self) -> None:
        wanted = self.world.wanted
        for key in self._secrets.keys() - wanted:
            self._secrets.pop(key).cancel()
            self._secret_problems.pop(key, None)
        self.world.secrets.keep_only(wanted)
        for key in sorted(wanted - self._secrets.keys()):
            if self._tasks is not None:
                self._secrets[key] = self._tasks.create_task(self._secret(key))

    async def _secret(self, key: Key) -> None:
        """Follow one Secret. One that may not be read is told of, so that it holds up nothing but itself."""
        namespace, name = key
        delay = 0.2
        while True:
            try:
                await self._client.get(f"{_CORE}/namespaces/{namespace}/secrets/{name}")
            except ApiError as error:
                if error.status == _NOT_FOUND:
                    break
                if error.status in {_FORBIDDEN, _UNAUTHORIZED}:
                    refused = self.world.secrets.refuse(key, f"the API server does not let us read it: {error.why}")
                    self.told(self.world.touched(Touch(routes=refused)))
                self._secret_problems[key] = f"{error}: {error.why}"
                await asyncio.sleep(max(delay, error.retry_after or 0.0))
                delay = min(60.0, delay * 2)
            else:
                break
        self._secret_problems.pop(key, None)
        collection = Collection(_CORE, "secrets", namespace, field_selector=f"metadata.name={name}")
        await self._reflector(collection, SecretFeed(self, key), trim_of(SECRET)).run()
