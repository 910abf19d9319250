"""Elections in etcd, and the fence by which etcd refuses the writes of whoever leads no longer."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from coupler.registrator.etcd import EtcdError, LeaseLostError
from coupler.registrator.etcd.v2 import KEY_NOT_FOUND, NODE_EXIST, EtcdV2, RefusedError
from coupler.registrator.etcd.v3 import Created, EtcdV3, Get, Put
from coupler.registrator.leader import RETRY, Elector, boot_clock

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from coupler.registrator.etcd import Store
    from coupler.registrator.etcd.v3 import Lease


class ElectionV3(Elector):
    """An election by the API v3: the key is bound to a lease, and created only where there is none.

    `ttl` is for how many seconds a leader that died is waited for. A key with our own `identity` that is there before
    we lead is of an earlier life, which is over: it is taken away.
    """

    def __init__(self, etcd: EtcdV3, key: str, *, ttl: int = 10, identity: str | None = None) -> None:
        super().__init__(key, ttl, identity)
        self._etcd = etcd
        self._lease: Lease | None = None

    async def resign(self) -> None:
        """Lead no more: the lease goes, and the key with it."""
        self._created, self._until = 0, 0.0
        lease, self._lease = self._lease, None
        if lease is not None:
            with contextlib.suppress(EtcdError):  # then it expires by itself
                await lease.revoke()

    async def _tenure(self, notify: Callable[[bool], None]) -> None:
        seen = await self._etcd.range(self.key)
        for item in (item for item in seen.items if item.key == self.key):
            if item.value == self.identity.encode():
                await self._etcd.revoke(item.lease)
            else:
                self._beaten_by(item.value.decode(errors="replace"))
                await _until_gone(self._etcd, self.key, seen.revision + 1)
        self._lease = lease = await self._etcd.grant(self.ttl)
        try:
            mine = Put(self.key, self.identity.encode(), lease.id)
            outcome = await self._etcd.txn([Created(self.key, 0)], [mine], [Get(self.key)])
            created = outcome.revision if outcome.succeeded else 0
            for item in outcome.items:  # ours: the answer to a first attempt was lost
                created = item.created if item.lease == lease.id else created
                if not created:
                    self._beaten_by(item.value.decode(errors="replace"))
            if created:
                self._won(notify, created, boot_clock() + lease.left)
                gone = _until_lost(self._etcd, self.key, created, outcome.revision + 1)
                await _first_of(self._renew(lease, created, notify), gone, self._expired())
        finally:
            self._lost(notify)
            await asyncio.shield(self.resign())

    async def _renew(self, lease: Lease, created: int, notify: Callable[[bool], None]) -> None:
        while self._lease is lease:
            await asyncio.sleep(min(self.ttl, lease.left) / 3)
            try:
                await lease.renew()
            except LeaseLostError:
                return
            except EtcdError:  # until it expires, there is another chance
                continue
            else:
                if self._lease is lease:
                    self._won(notify, created, boot_clock() + lease.left)


class ElectionV2(Elector):
    """An election by the API v2: the key has a time to live, and is created only where there is none.

    Weaker than that of v3: no write can be compared with the key of the leader.
    """

    def __init__(self, etcd: EtcdV2, key: str, *, ttl: int = 10, identity: str | None = None) -> None:
        super().__init__(key, ttl, identity)
        self._etcd = etcd
        self._key_is_ours = False

    async def resign(self) -> None:
        """Lead no more: the key goes, if it is still ours."""
        self._created, self._until = 0, 0.0
        ours, self._key_is_ours = self._key_is_ours, False
        if ours:
            with contextlib.suppress(EtcdError):  # then it expires by itself
                await self._etcd.delete(self.key, previous_value=self.identity)

    async def _tenure(self, notify: Callable[[bool], None]) -> None:
        asked = boot_clock()
        try:
            node = await self._etcd.set(self.key, self.identity, ttl=self.ttl, exists=False)
        except RefusedError as refusal:
            if refusal.code != NODE_EXIST:
                raise
            seen = await self._etcd.get(self.key)
            if seen.node is None:
                return
            if seen.node.value != self.identity:
                self._beaten_by(seen.node.value or "")
                await _until_gone(self._etcd, f"/{self.key}", seen.index + 1)
                return
            asked, node = boot_clock(), seen.node  # ours: the answer to a first attempt was lost
            await self._etcd.refresh(self.key, self.ttl, previous_value=self.identity)
        self._won(notify, node.created, asked + self.ttl)
        self._key_is_ours = True
        try:
            gone = _until_lost(self._etcd, f"/{self.key}", node.created, node.modified + 1)
            await _first_of(self._renew(node.created, notify), gone, self._expired())
        finally:
            self._lost(notify)
            await asyncio.shield(self.resign())

    async def _renew(self, created: int, notify: Callable[[bool], None]) -> None:
        while self._created == created:
            await asyncio.sleep(min(float(self.ttl), max(0.0, self._until - boot_clock())) / 3)
            asked = boot_clock()
            try:
                await self._etcd.refresh(self.key, self.ttl, previous_value=self.identity)
            except RefusedError as refusal:
                if refusal.code == KEY_NOT_FOUND:
                    return
                raise
            except EtcdError:
                continue  # until it expires, there is another chance
            if self._created == created:
                self._won(notify, created, asked + self.ttl)


async def _until_gone(etcd: Store, key: str, revision: int) -> None:
    """Return when `key` is deleted, after `revision`."""
    async with contextlib.aclosing(etcd.watch(key, revision)) as batches:
        async for batch in batches:
            if any(event.key == key and event.item is None for event in batch.events):
                return


async def _until_lost(etcd: Store, key: str, created: int, revision: int) -> None:
    """Return when `key` is not the one that was created then; wait while etcd is away, for the lease counts too."""
    while True:
        try:
            return await _until_gone(etcd, key, revision)
        except EtcdError:
            await asyncio.sleep(RETRY / 4)
        with contextlib.suppress(EtcdError):
            seen = await etcd.range(key)
            if not any(item.key == key and item.created == created for item in seen.items):
                return None
            revision = seen.revision + 1


async def _first_of(*works: Coroutine[None, None, None]) -> None:
    """Run all until the first ends, and end the others; what that one raised is raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
