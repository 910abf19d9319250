"""The client of etcd's API v2 against a real etcd."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from tests.contract.etcd_client.following import following, until

from coupler.registrator.etcd import CompactedError, EtcdError
from coupler.registrator.etcd.endpoints import Access
from coupler.registrator.etcd.v2 import KEY_NOT_FOUND, NODE_EXIST, TEST_FAILED, EtcdV2, RefusedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.contract.etcd import Etcd, EtcdCluster


@contextlib.asynccontextmanager
async def client(etcd: Etcd | EtcdCluster, **options: object) -> AsyncIterator[EtcdV2]:
    store = EtcdV2(Access((etcd.url,), request_timeout=3.0), **options)
    try:
        yield store
    finally:
        await store.close()


def test_a_tree_is_written_and_read(etcd: Etcd) -> None:
    async def scenario() -> None:
        async with client(etcd) as store:
            assert (await store.get("/a")).node is None
            await store.set("/a/b/ü &?", "v=1&2")
            await store.set("/a/c", "two")
            await store.make_directory("/a/empty")
            listing = await store.get("/a")
            assert listing.node is not None
            assert [(node.key, node.directory) for node in listing.node.nodes] == [
                ("/a/b", True),
                ("/a/c", False),
                ("/a/empty", True),
            ]
            snapshot = await store.range("/a")
            assert [(item.key, item.value) for item in snapshot.items] == [("/a/b/ü &?", b"v=1&2"), ("/a/c", b"two")]
            assert snapshot.revision == listing.index
            assert await store.delete("/a/empty", directory=True)
            assert await store.delete("/a", recursive=True)
            assert not await store.delete("/a", recursive=True)
            assert (await store.range("/a")).items == ()

    asyncio.run(scenario())


def test_writes_under_a_condition(etcd: Etcd) -> None:
    async def scenario() -> None:
        async with client(etcd) as store:

            async def refused(code: int, **condition: object) -> None:
                with pytest.raises(RefusedError) as raised:
                    await store.set("/k", "no", **condition)
                assert raised.value.code == code

            await refused(KEY_NOT_FOUND, exists=True)
            first = await store.set("/k", "1", exists=False)
            await refused(NODE_EXIST, exists=False)
            await refused(TEST_FAILED, previous_value="other")
            await store.set("/k", "2", previous_value="1")
            await refused(TEST_FAILED, previous_index=first.modified)
            second = (await store.get("/k")).node
            assert second is not None
            assert second.created == first.created
            assert (await store.set("/k", "2")).created > first.created
            with pytest.raises(RefusedError):
                await store.delete("/k", previous_value="1")
            assert await store.delete("/k", previous_value="2")

    asyncio.run(scenario())


def test_expiry_is_told_and_a_refresh_is_not(etcd: Etcd) -> None:
    async def scenario() -> None:
        async with client(etcd) as store:
            left = await store.set("/w/left", "1", ttl=1)
            await store.set("/w/kept", "1", ttl=2)
            async with following(store, "/w", left.modified) as seen:
                for _ in range(12):
                    await store.refresh("/w/kept", 2)
                    await asyncio.sleep(0.25)
                await until(lambda: ("/w/left", None) in seen.keys, "the expiry is not told")
                assert seen.keys == [("/w/left", b"1"), ("/w/kept", b"1"), ("/w/left", None)]
            with pytest.raises(RefusedError):
                await store.refresh("/w/left", 2)

    asyncio.run(scenario())


def test_a_directory_that_goes_is_one_event(etcd: Etcd) -> None:
    async def scenario() -> None:
        async with client(etcd) as store:
            last = await store.set("/w/d/a", "1")
            async with following(store, "/w", last.modified + 1) as seen:
                await store.delete("/w/d", recursive=True)
                await until(lambda: len(seen.batches) > 1, "nothing is told")
                (event,) = seen.batches[-1].events
                assert (event.key, event.item, event.directory) == ("/w/d", None, True)

    asyncio.run(scenario())


def test_a_watch_of_forgotten_history_says_so(etcd: Etcd) -> None:
    async def scenario() -> None:
        async with client(etcd) as store:
            first = await store.set("/w/a", "1")
            for n in range(1100):
                await store.set("/other", str(n))
            async with following(store, "/w", first.modified) as seen:
                await until(lambda: seen.error is not None, "the watch goes on")
            assert isinstance(seen.error, CompactedError)
            assert seen.error.revision > first.modified

    asyncio.run(scenario())


def test_a_silent_watch_is_opened_anew_and_ends_with_its_etcd(etcd: Etcd) -> None:
    async def scenario() -> None:
        async with client(etcd, stall=0.05) as store:
            start = (await store.range("/w")).revision
            async with following(store, "/w", start + 1) as seen:
                for n in range(20):
                    await store.set(f"/w/{n}", "")
                    await asyncio.sleep(0.03)
                await until(lambda: len(seen.keys) == 20, "events are missing")
                assert [key for key, _ in seen.keys] == [f"/w/{n}" for n in range(20)]
                etcd.stop()
                await until(lambda: seen.error is not None, "the watch goes on without etcd")
                assert isinstance(seen.error, EtcdError)

    asyncio.run(scenario())


def test_an_etcd_without_this_api_is_named(tmp_path, etcd: Etcd) -> None:
    async def scenario() -> None:
        etcd.stop()
        etcd._options = ()
        await asyncio.to_thread(etcd.start)
        async with client(etcd) as store:
            with pytest.raises(EtcdError) as raised:
                await store.get("/k")
            assert "--enable-v2" in str(raised.value.next_step)

    asyncio.run(scenario())


def test_without_a_quorum_nothing_is_read(etcd_cluster: EtcdCluster) -> None:
    async def scenario() -> None:
        async with client(etcd_cluster) as store:  # of the one member that stays
            await store.set("/a", "1")
            assert (await store.get("/a")).node is not None
            etcd_cluster.stop(1)
            etcd_cluster.stop(2)
            for read in (store.get, store.range):
                with pytest.raises(EtcdError):
                    await read("/a")
            etcd_cluster.start(1)
            await until_read(store, "/a")

    asyncio.run(scenario())


async def until_read(store: EtcdV2, key: str) -> None:
    """Read until it succeeds."""
    async with asyncio.timeout(15):
        while True:
            with contextlib.suppress(EtcdError):
                await store.get(key)
                return
            await asyncio.sleep(0.1)
