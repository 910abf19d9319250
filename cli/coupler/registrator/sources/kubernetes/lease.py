"""An election held by a Lease of Kubernetes (coordination.k8s.io/v1), as client-go's leaderelection holds it.

Clocks of different machines are not compared: a candidate takes the place of a leader whose Lease it has seen unchanged
for as long as the Lease says. A leader that cannot renew stops after two thirds of that.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from coupler.registrator.leader import RETRY, Elector, Fence, boot_clock
from coupler.registrator.sources.kubernetes.client import ApiError
from coupler.registrator.sources.kubernetes.objects import fine_stamp

if TYPE_CHECKING:
    from collections.abc import Callable

    from coupler.registrator.sources.kubernetes.client import ApiClient
    from coupler.registrator.sources.kubernetes.objects import Json

_NOT_FOUND, _CONFLICT = 404, 409
_API = "coordination.k8s.io/v1"
_RENEWALS = 7
"""How often a leader renews within the time that its Lease lasts."""

_RESIGN_SECONDS = 2.0


class LeaseElection(Elector):
    """An election for the one who writes to Kubernetes; a leader that died is waited for `ttl` seconds."""

    def __init__(
        self, client: ApiClient, namespace: str, name: str, *, ttl: int = 15, identity: str | None = None
    ) -> None:
        super().__init__(f"Lease {namespace}/{name}", ttl, identity)
        self._client, self._name = client, name
        self._path = f"/apis/{_API}/namespaces/{namespace}/leases"
        self._held: Json | None = None  # the Lease as we wrote it last

    @property
    def fence(self) -> Fence | None:
        """Return None: no write to etcd can be compared with a Lease."""
        return None

    async def resign(self) -> None:
        """Lead no more: the Lease names nobody, if it is still ours."""
        self._created, self._until = 0, 0.0
        held, self._held = self._held, None
        if held is not None:
            with contextlib.suppress(ApiError, TimeoutError):  # then it runs out by itself
                async with asyncio.timeout(_RESIGN_SECONDS):
                    await self._put(held, held["spec"] | {"holderIdentity": "", "leaseDurationSeconds": 1})

    async def _tenure(self, notify: Callable[[bool], None]) -> None:
        found = await self._vacant()
        asked, now = boot_clock(), fine_stamp(time.time())
        spec = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": self.ttl,
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": _transitions(found) + 1 if found else 0,
        }
        try:
            if found:
                self._held = await self._put(found, spec)
            else:
                metadata = {"name": self._name}
                lease = {"apiVersion": _API, "kind": "Lease", "metadata": metadata, "spec": spec}
                self._held = await self._client.post(self._path, lease)
        except ApiError as error:
            if error.status == _CONFLICT:
                return  # another one was quicker
            raise
        try:
            self._lead(notify, asked)
            while self.leads and self._held is not None:
                await asyncio.sleep(self.ttl / _RENEWALS)
                await self._renew(notify)
        finally:
            self._lost(notify)
            await asyncio.shield(self.resign())

    def _lead(self, notify: Callable[[bool], None], asked: float) -> None:
        self._won(notify, 1, asked + self.ttl * 2 / 3)

    async def _renew(self, notify: Callable[[bool], None]) -> None:
        """Renew what we hold, or find that we hold it no more; a server that does not answer is asked again."""
        held, asked = self._held, boot_clock()
        if held is None:
            return
        try:
            async with asyncio.timeout(max(0.0, self._until - asked)):
                self._held = await self._put(held, held["spec"] | {"renewTime": fine_stamp(time.time())})
        except TimeoutError:
            return
        except ApiError as error:
            if error.status == _CONFLICT:
                seen = await self._read()
                self._held = seen if seen and _holder(seen) == self.identity else None
            elif error.status == _NOT_FOUND:
                self._held = None
            return
        self._lead(notify, asked)

    async def _vacant(self) -> Json | None:
        """Return the Lease once nobody holds it any more, or None where there is none yet."""
        version, since = None, boot_clock()
        while True:
            seen = await self._read()
            if seen is None or _holder(seen) in {"", self.identity}:
                return seen
            if seen["metadata"].get("resourceVersion") != version:
                version, since = seen["metadata"].get("resourceVersion"), boot_clock()
            elif boot_clock() - since >= (seen["spec"].get("leaseDurationSeconds") or self.ttl):
                return seen
            await asyncio.sleep(min(RETRY, self.ttl / _RENEWALS))

    async def _read(self) -> Json | None:
        try:
            found: Json = await self._client.get(f"{self._path}/{self._name}")
        except ApiError as error:
            if error.status == _NOT_FOUND:
                return None
            raise
        return {**found, "spec": found.get("spec") or {}}

    async def _put(self, lease: Json, spec: Json) -> Json:
        """Replace the Lease where it is still this one: its resourceVersion goes along."""
        written: Json = await self._client.put(f"{self._path}/{self._name}", lease | {"spec": spec})
        return written


def _holder(lease: Json) -> str:
    return lease["spec"].get("holderIdentity") or ""


def _transitions(lease: Json) -> int:
    return lease["spec"].get("leaseTransitions") or 0
