"""The client of etcd's API v3 against a real etcd."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from tests.contract.etcd_client.following import following, until
from tests.contract.traffic import free_port

from coupler.registrator.etcd import CompactedError, EtcdError, LeaseLostError
from coupler.registrator.etcd.endpoints import Access
from coupler.registrator.etcd.v3 import Created, Delete, EtcdV3, Get, Modified, Put

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.contract.etcd import Etcd, EtcdCluster


@contextlib.asynccontextmanager
async def client(etcd: Etcd | EtcdCluster, **options: object) -> AsyncIterator[EtcdV3]:
    urls = getattr(etcd, "urls", None) or (etcd.url,)
    store = EtcdV3(Access(urls, request_timeout=3.0), **options)
    try:
        yield store
    finally:
        await store.close()


def test_keys_and_values_of_any_bytes(etcd: Etcd) -> None:
    async def scenario() -> None:
        async with client(etcd) as store:
            assert await store.get("a/ü") is None
            first = await store.put("a/ü", b"\0\xff")
            second = await store.put("a/ü", b"two")
            item = await store.get("a/ü")
            assert item is not None
            assert (item.value, item.created, item.modified) == (b"two", first, second)
            await store.put("b/\udcff", b"")
            assert [i.key for i in (await store.range("b/")).items] == ["b/\udcff"]
            assert await store.delete("a/ü") == 1
            assert await store.delete("a/ü") == 0

    asyncio.run(scenario())


def test_a_range_is_of_one_revision_though_keys_change_between_its_pages(etcd: Etcd) -> None:
    async def scenario() -> None:
        async with client(etcd, page=7) as store:
            await store.write(Put(f"p/{n:03}", b"old") for n in range(250))
            await store.put("p0", b"beside")
            before = (await store.range("p/")).revision
            reading = asyncio.create_task(store.range("p/"))
            await asyncio.sleep(0.01)
            await store.delete("p/", prefix=True)
            old = await reading
            assert len(old.items) in {0, 250}
            assert len((await store.range("p/", revision=before)).items) == 250
            assert (await store.range("p/")).items == ()
            assert [item.key for item in (await store.range("")).items] == ["p0"]

    asyncio.run(scenario())


def test_transactions_compare_and_any_number_of_operations_goes_in_batches(etcd: Etcd) -> None:
    async def scenario() -> None:
        async with client(etcd) as store:
            done = await store.txn([Created("k", 0)], [Put("k", b"1")], [Get("k")])
            assert done.succeeded
            again = await store.txn([Created("k", 0)], [Put("k", b"2")], [Get("k")])
            assert not again.succeeded
            assert [item.value for item in again.items] == [b"1"]
            twice = [Put("k", b"3"), Put("k", b"4")]  # etcd takes a key once in a transaction: these are two
            assert not await store.write(twice, [Modified("k", done.revision)])
            assert (await store.range("k")).items[0].value == b"3"
            assert await store.write([*twice, Delete("k"), Put("k", b"5")], [])
            item = await store.get("k")
            assert item is not None
            assert item.value == b"5"
            many = [Put(f"m/{n}", b"x" * 20_000) for n in range(300)]
            assert await store.write(many, [Modified("k", item.modified)])
            assert len((await store.range("m/")).items) == 300
            assert await store.write([Delete("m/", prefix=True), Put("m/new", b"")])
            assert [item.key for item in (await store.range("m/")).items] == ["m/new"]

    asyncio.run(scenario())


def test_a_watch_tells_what_happened_in_order_from_its_revision_on(etcd: Etcd) -> None:
    async def scenario() -> None:
        async with client(etcd) as store:
            start = await store.put("w/a", b"1")
            await store.put("w/b", b"2")
            async with following(store, "w/", start) as seen:
                await store.put("x", b"beside")
                await store.delete("w/a")
                await until(lambda: len(seen.keys) == 3, "events are missing")
                assert seen.keys == [("w/a", b"1"), ("w/b", b"2"), ("w/a", None)]
                assert [batch.revision for batch in seen.batches] == sorted(batch.revision for batch in seen.batches)

    asyncio.run(scenario())


def test_a_watch_of_forgotten_history_says_so(etcd: Etcd) -> None:
    async def scenario() -> None:
        async with client(etcd) as store:
            for _ in range(5):
                last = await store.put("w/a", b"1")
            etcd.ctl("compact", str(last))
            async with following(store, "w/", last - 3) as seen:
                await until(lambda: seen.error is not None, "the watch goes on")
            assert isinstance(seen.error, CompactedError)
            assert seen.error.revision == last
            with pytest.raises(CompactedError):
                await store.range("w/", revision=last - 3)

    asyncio.run(scenario())


def test_a_silent_watch_is_opened_anew_and_misses_nothing(etcd: Etcd) -> None:
    async def scenario() -> None:
        async with client(etcd, stall=0.05) as store:
            revision = (await store.range("w/")).revision
            async with following(store, "w/", revision + 1) as seen:
                for n in range(20):
                    await store.put(f"w/{n}", b"")
                    await asyncio.sleep(0.03)
                await until(lambda: len(seen.keys) == 20, "events are missing")
                assert [key for key, _ in seen.keys] == [f"w/{n}" for n in range(20)]
                assert seen.error is None

    asyncio.run(scenario())


def test_a_watch_ends_with_its_etcd_and_can_be_taken_up_again(etcd: Etcd) -> None:
    async def scenario() -> None:
        async with client(etcd) as store:
            revision = await store.put("w/a", b"1")
            async with following(store, "w/", revision + 1) as seen:
                etcd.stop()
                await until(lambda: seen.error is not None, "the watch goes on without etcd")
                assert isinstance(seen.error, EtcdError)
                with pytest.raises(EtcdError) as raised:
                    await store.range("w/")
                assert etcd.url in str(raised.value.why)
            await asyncio.to_thread(etcd.start)
            await store.put("w/b", b"2")
            async with following(store, "w/", revision + 1) as seen:
                await until(lambda: seen.keys == [("w/b", b"2")], "the watch does not go on")

    asyncio.run(scenario())


def test_leases(etcd: Etcd) -> None:
    async def scenario() -> None:
        async with client(etcd) as store:
            kept, left, revoked = await store.grant(2), await store.grant(1), await store.grant(60)
            for name, lease in (("kept", kept), ("left", left), ("revoked", revoked)):
                await store.put(f"l/{name}", b"", lease.id)
            keeping = asyncio.create_task(kept.keep())
            await revoked.revoke()
            await revoked.revoke()
            assert not revoked.valid
            with pytest.raises(LeaseLostError):
                await revoked.renew()
            for _ in range(60):
                items = (await store.range("l/")).items
                if len(items) == 1:
                    break
                await asyncio.sleep(0.1)
            assert [item.key for item in items] == ["l/kept"]
            assert kept.valid
            assert not left.valid
            await store.revoke(kept.id)
            with pytest.raises(LeaseLostError):
                await keeping
            with pytest.raises(EtcdError, match="refuses"):
                await store.put("l/late", b"", left.id)

    asyncio.run(scenario())


def test_user_and_password_and_a_token_that_is_too_old(etcd: Etcd) -> None:
    async def scenario() -> None:
        etcd.ctl("user", "add", "root:secret")
        etcd.ctl("auth", "enable")
        access = Access((etcd.url,), user="root", password="secret")
        store, stranger = EtcdV3(access), EtcdV3(Access((etcd.url,)))
        wrong = EtcdV3(Access((etcd.url,), user="root", password="no"))
        try:
            revision = await store.put("k", b"1")
            async with following(store, "k", revision) as seen:
                await until(lambda: seen.keys == [("k", b"1")], "the watch says nothing")
            for refused in (stranger, wrong):
                with pytest.raises(EtcdError, match="refuses"):
                    await refused.get("k")
            await asyncio.to_thread(etcd.stop)  # etcd forgets its tokens
            await asyncio.to_thread(etcd.start_unchecked)
            for _ in range(100):
                with contextlib.suppress(EtcdError):
                    assert (await store.range("k")).items[0].value == b"1"
                    break
                await asyncio.sleep(0.1)
            else:
                raise AssertionError("the client does not get in again")
        finally:
            for each in (store, stranger, wrong):
                await each.close()

    asyncio.run(scenario())


def test_the_next_endpoint_is_tried_and_the_one_that_works_is_kept(etcd: Etcd) -> None:
    async def scenario() -> None:
        nobody = f"http://127.0.0.1:{free_port()}"
        store = EtcdV3(Access((nobody, etcd.url)))
        try:
            await store.put("k", b"1")
            assert store._http.url == etcd.url
        finally:
            await store.close()

    asyncio.run(scenario())


def test_without_a_quorum_nothing_is_read_and_no_watch_goes_on(etcd_cluster: EtcdCluster) -> None:
    async def scenario() -> None:
        async with client(etcd_cluster) as store:
            revision = await store.put("k", b"1")
            async with following(store, "k", revision + 1) as seen:
                etcd_cluster.stop(0)
                for _ in range(100):  # one of three may go; a new leader may have to be elected
                    with contextlib.suppress(EtcdError):
                        assert (await store.range("k")).items[0].value == b"1"
                        break
                else:
                    raise AssertionError("two of three are not enough")
                etcd_cluster.stop(1)
                await until(lambda: seen.error is not None, "the watch goes on without a quorum")
                assert isinstance(seen.error, EtcdError)
                with pytest.raises(EtcdError):
                    await store.range("k")

    asyncio.run(scenario())
