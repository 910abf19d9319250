"""The adapter of vulcand on a real etcd of either API, followed by the fake that real vulcands were the model of."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
from tests.contract.vulcand.world import APIS, World, at, backend, desired, world

from coupler.registrator.balancers import BalancerError
from coupler.registrator.balancers.vulcand.ids import is_ours
from coupler.registrator.etcd.election import ElectionV2, ElectionV3
from coupler.registrator.model import (
    Balance,
    Desired,
    Endpoint,
    Host,
    Middleware,
    Mode,
    Policy,
    Redirect,
    Route,
    State,
    TcpRoute,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.contract.etcd import Etcd

    from coupler.registrator.leader import Fence

pytestmark = pytest.mark.parametrize("api", APIS)


def play(api: str, etcd: Etcd, scenario: Callable[[World], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        async with world(api, etcd, **options) as made:
            await scenario(made)

    asyncio.run(run())


def test_backends_are_routed_moved_and_taken_away(api: str, etcd: Etcd) -> None:
    async def scenario(it: World) -> None:
        adapter = it.adapter()
        both = desired(backend("shop", 1001, 1002), backend("blog", 1003))
        assert (await adapter.apply(both, None, remove=True)).changes
        assert await it.ask("shop.test") == at(1001, 1002)
        assert await it.ask("blog.test") == at(1003)
        assert await it.ask("other.test") == (404, frozenset())
        assert (await adapter.apply(both, None, remove=True)).changes == 0
        assert await adapter.drift(both) == frozenset()
        fewer = desired(backend("shop", 1002, 1004), backend("blog", 1003))
        assert (await adapter.apply(fewer, {"shop"}, remove=True)).changes == 2
        assert await it.ask("shop.test") == at(1002, 1004)
        await it.restart()
        await adapter.apply(desired(backend("blog", 1003)), None, remove=True)
        assert await it.ask("shop.test") == (404, frozenset())
        assert await it.ask("blog.test") == at(1003)
        await it.restart()
        await adapter.apply(Desired(), None, remove=True)
        assert set(await it.tree()) <= {"marker"}
        assert not it.vulcand.refused

    play(api, etcd, scenario)


def test_nothing_goes_without_leave(api: str, etcd: Etcd) -> None:
    async def scenario(it: World) -> None:
        adapter = it.adapter()
        await adapter.apply(desired(backend("shop", 1001, 1002), backend("blog", 1003)), None, remove=True)
        await adapter.apply(desired(backend("shop", 1004)), None, remove=False)
        assert await it.ask("shop.test") == at(1001, 1002, 1004)
        assert await it.ask("blog.test") == at(1003)
        assert all(action in {"set", "put"} for action, _ in it.events)

    play(api, etcd, scenario)


def test_endpoints_that_are_not_ready_leave_and_addresses_count_once(api: str, etcd: Etcd) -> None:
    async def scenario(it: World) -> None:
        adapter = it.adapter()
        shop = backend("shop", 1001, 1002, 1003, 1004)
        await adapter.apply(desired(shop), None, remove=True)
        states = (State.READY, State.DRAIN, State.DOWN, State.READY)
        endpoints = [dataclasses.replace(e, state=s) for e, s in zip(shop.endpoints, states, strict=True)]
        endpoints[3] = dataclasses.replace(endpoints[3], weight=0)
        twin = Endpoint("twin", "127.0.0.1", 1001)
        changed = dataclasses.replace(shop, endpoints=(*endpoints, twin))
        assert (await adapter.apply(desired(changed), {"shop"}, remove=False)).changes == 3
        assert await it.ask("shop.test") == at(1001)
        alone = dataclasses.replace(shop, endpoints=(twin,))
        assert (await adapter.apply(desired(alone), {"shop"}, remove=True)).changes == 0
        assert await it.ask("shop.test") == at(1001)
        await adapter.apply(desired(dataclasses.replace(shop, endpoints=())), {"shop"}, remove=True)
        assert await it.ask("shop.test") == (500, frozenset())
        await it.restart()

    play(api, etcd, scenario)


def test_other_peoples_entries_are_never_touched(api: str, etcd: Etcd) -> None:
    async def scenario(it: World) -> None:
        theirs = {
            "backends/shop/backend": {"Type": "http"},
            "backends/shop/servers/a": {"URL": "http://127.0.0.1:900"},
            "frontends/shop/frontend": {"Type": "http", "BackendId": "shop", "Route": 'Host("theirs.test")'},
            "backends/c0ffee12-coupler.shop/backend": {"Type": "http"},  # a digest that is none
            "listeners/l1": {"Protocol": "http", "Address": {"Network": "tcp", "Address": "0.0.0.0:80"}},
        }
        for path, value in theirs.items():
            await it.put(path, value)
        adapter, stranger = it.adapter(), it.adapter(owner="other")
        await stranger.apply(
            desired(backend("shop", 901), routes=[Route("r", "shop", "other.test")]), None, remove=True
        )
        await adapter.apply(desired(backend("shop", 1001)), None, remove=True)
        await adapter.apply(Desired(), None, remove=True)
        assert await it.ask("theirs.test") == at(900)
        assert await it.ask("other.test") == at(901)
        assert {path: value for path, value in (await it.tree()).items() if path in theirs} == theirs

    play(api, etcd, scenario)


def test_a_backend_that_others_use_stays(api: str, etcd: Etcd) -> None:
    async def scenario(it: World) -> None:
        adapter = it.adapter()
        await adapter.apply(desired(backend("shop", 1001)), None, remove=True)
        (name,) = {path.split("/")[1] for path in await it.tree() if path.startswith("backends/")}
        await it.put("frontends/x/frontend", {"Type": "http", "BackendId": name, "Route": 'Host("x.test")'})
        applied = await adapter.apply(Desired(), None, remove=True)
        assert applied.failed == {f"backends/{name}": "frontend x, which is not ours, still leads there"}
        assert await it.ask("x.test") == at(1001)
        assert await it.ask("shop.test") == (404, frozenset())
        await it.restart()
        await it.store.delete("vulcand/frontends/x/frontend")
        if api == "v2":
            await it.store.delete("vulcand/frontends/x", directory=True)
        assert not (await adapter.apply(Desired(), applied.failed.keys(), remove=True)).failed
        assert set(await it.tree()) <= {"marker"}

    play(api, etcd, scenario)


@pytest.mark.parametrize("lost", ["backend", "server", "frontend", "all of the backend", "the whole frontend"])
def test_what_is_lost_is_found_and_serves_again(api: str, lost: str, etcd: Etcd) -> None:
    async def scenario(it: World) -> None:
        adapter = it.adapter()
        wanted = desired(backend("shop", 1001, 1002), backend("blog", 1003))
        await adapter.apply(wanted, None, remove=True)
        parts = {path: path.split("/") for path in await it.tree() if "shop" in path}
        gone = {
            "backend": [p for p in parts if p.endswith("/backend")],
            "server": [p for p in parts if "/servers/" in p][:1],
            "frontend": [p for p in parts if p.endswith("/frontend")],
            "all of the backend": [p for p in parts if p.startswith("backends/")],
            "the whole frontend": [p for p in parts if p.startswith("frontends/")],
        }[lost]
        assert gone
        for path in gone:
            await it.delete(path)
        assert await adapter.drift(wanted) == {"shop"}
        await adapter.apply(wanted, {"shop"}, remove=True)
        assert await it.ask("shop.test") == at(1001, 1002)
        assert await it.ask("blog.test") == at(1003)
        assert await adapter.drift(wanted) == frozenset()
        more = desired(backend("shop", 1001, 1002, 1005), backend("blog", 1003))
        await adapter.apply(more, {"shop"}, remove=True)
        assert await it.ask("shop.test") == at(1001, 1002, 1005)
        await it.restart()

    play(api, etcd, scenario)


def test_a_backend_that_somebody_deleted_and_wrote_anew_serves_again(api: str, etcd: Etcd) -> None:
    async def scenario(it: World) -> None:
        adapter = it.adapter()
        wanted = desired(backend("shop", 1001))
        await adapter.apply(wanted, None, remove=True)
        tree = {path: value for path, value in (await it.tree()).items() if path.startswith("backends/")}
        for path in tree:
            await it.delete(path)
        for path, value in tree.items():
            await it.put(path, value)
        more = desired(backend("shop", 1002))
        await adapter.apply(more, {"shop"}, remove=True)
        assert await it.ask("shop.test") == at(1002)
        await it.restart()

    play(api, etcd, scenario)


def test_repairs_of_values_and_of_what_vulcand_does_not_compare(api: str, etcd: Etcd) -> None:
    async def scenario(it: World) -> None:
        adapter = it.adapter()
        wanted = desired(backend("shop", 1001))
        await adapter.apply(wanted, None, remove=True)
        assert await it.ask("shop.test") == at(1001)
        tree = {path: value for path, value in (await it.tree()).items() if path != "marker"}
        (path,) = [p for p in tree if p.endswith("/frontend")]
        changed = {**tree[path], "Settings": {**tree[path]["Settings"], "PassHostHeader": False}}
        it.deaf = True  # vulcand is started with the wrong value, so that it has it in memory
        await it.put(path, changed)
        await it.caught_up()
        it.deaf = False
        it.vulcand.frontends[path.split("/")[1]].document = changed
        assert await adapter.drift(wanted) == {"shop"}
        await adapter.apply(wanted, {"shop"}, remove=True)
        await it.caught_up()
        assert it.vulcand.frontends[path.split("/")[1]].document == tree[path]
        await it.put(path, "no JSON")
        await it.put(next(p for p in tree if "/servers/" in p), {"URL": "http://127.0.0.1:1"})
        await it.put("/".join([*path.split("/")[:2], "middlewares", "foreign"]), {"Type": "trace"})
        assert await adapter.drift(wanted) == {"shop"}
        await adapter.apply(wanted, {"shop"}, remove=True)
        assert {p: v for p, v in (await it.tree()).items() if p in tree} == tree
        assert await adapter.drift(wanted) == frozenset()
        assert await it.ask("shop.test") == at(1001)

    play(api, etcd, scenario)


def test_a_route_that_changes_its_backend_is_never_without_one(api: str, etcd: Etcd) -> None:
    async def scenario(it: World) -> None:
        adapter = it.adapter()
        first, second = backend("one", 1001), backend("two", 1002)
        await adapter.apply(desired(first, second, routes=[Route("a", "one", "shop.test")]), None, remove=True)
        before = len(it.events)
        moved = desired(second, routes=[Route("b", "two", "shop.test", priority=0)])
        await adapter.apply(moved, None, remove=True)
        assert await it.ask("shop.test") == at(1002)
        assert not [path for action, path in it.events[before:] if action == "delete" and path.startswith("frontends")]
        await adapter.apply(desired(second, routes=[Route("b", "two", "shop.test", priority=7)]), None, remove=True)
        assert await it.ask("shop.test") == at(1002)
        await it.restart()

    play(api, etcd, scenario)


def test_a_backend_all_of_whose_servers_change_is_never_without_one(api: str, etcd: Etcd) -> None:
    async def scenario(it: World) -> None:
        adapter = it.adapter()
        await adapter.apply(desired(backend("shop", 1001, 1002)), None, remove=True)
        await it.caught_up()
        answers: list[int] = []
        event = it.vulcand.event

        def noted(*words: Any) -> None:
            event(*words)
            answers.append(it.vulcand.ask("/", "shop.test")[0])

        it.vulcand.event = noted  # type: ignore[method-assign]
        leaving = Endpoint("shop-1003", "127.0.0.1", 1003, State.DRAIN)
        for endpoints in (backend("shop", 1003).endpoints, (*backend("shop", 1004).endpoints, leaving)):
            await adapter.apply(
                desired(dataclasses.replace(backend("shop"), endpoints=endpoints)), {"shop"}, remove=True
            )
            await it.caught_up()
        assert len(answers) == 5  # one comes and two go, one comes and one goes
        assert set(answers) == {200}

    play(api, etcd, scenario)


def test_routes_that_change_alone_are_moved_at_once(api: str, etcd: Etcd) -> None:
    async def scenario(it: World) -> None:
        adapter = it.adapter()
        shop, blog = backend("shop", 1001), backend("blog", 1002)

        async def moved(*routes: Route) -> None:
            assert (await adapter.apply(desired(shop, blog, routes=routes), frozenset(), remove=True)).changes

        kept = Route("k", "blog", "blog.test")
        await adapter.apply(desired(shop, blog, routes=[kept]), None, remove=True)
        await moved(kept, Route("r", "shop", "old.test"))
        assert await it.ask("old.test") == at(1001)
        await moved(kept, Route("r", "shop", "new.test"))
        assert await it.ask("new.test") == at(1001)
        assert await it.ask("old.test") == (404, frozenset())
        await moved(kept)
        assert await it.ask("new.test") == (404, frozenset())
        assert await it.ask("blog.test") == at(1002)
        same = await adapter.apply(desired(shop, blog, routes=[kept]), frozenset(), remove=True)
        assert same.changes == 0

    play(api, etcd, scenario)


def test_policies_become_settings_and_middlewares(api: str, etcd: Etcd) -> None:
    async def scenario(it: World) -> None:
        policy = Policy(
            connect_timeout=0.25,
            read_timeout=30,
            tls=True,
            max_body=1000,
            rate_limit=7,
            replace_prefix=("/api", "/"),
        )
        limit = Middleware("conns", '{"Type":"connlimit","Middleware":{"Connections":3,"Variable":"client.ip"}}')
        route = Route("r", "shop", "shop.test", "/api", middlewares=(limit,))
        adapter = it.adapter()
        await adapter.apply(desired(backend("shop", 1001, policy=policy), routes=[route]), None, remove=True)
        assert await it.ask("shop.test", "/api") == (200, {"https://127.0.0.1:1001"})
        frontend = it.vulcand.frontend_of("/api/x", "shop.test")
        assert frontend is not None
        assert frontend.document["Settings"] == {"PassHostHeader": True, "Limits": {"MaxBodyBytes": 1000}}
        assert frontend.middlewares.keys() == {"coupler-rate-limit", "coupler-replace-prefix", "conns"}
        assert list(it.vulcand.settings.values()) == [
            {"Timeouts": {"Dial": "250ms", "Read": "30000ms"}, "TLS": {"InsecureSkipVerify": True}}
        ]
        plain = desired(backend("shop", 1001), routes=[dataclasses.replace(route, middlewares=())])
        await adapter.apply(plain, None, remove=True)
        assert await it.ask("shop.test", "/api") == at(1001)
        assert it.vulcand.frontend_of("/api/x", "shop.test").middlewares == {}
        await it.restart()

    play(api, etcd, scenario)


def test_what_vulcand_cannot_do_is_said(api: str, etcd: Etcd) -> None:
    async def scenario(it: World) -> None:
        adapter = it.adapter()
        bad = Route("bad", "good", "bad.test", middlewares=(Middleware("m", '{"Type":"nonsense","Middleware":{}}'),))
        routes = [*desired(backend("good", 1)).routes, bad, Route("r", "redirected", "r.test")]
        wanted = desired(
            backend("good", 1001, policy=Policy(balance=Balance.LEASTCONN, sticky_cookie="S")),
            backend("tcp", 1002, mode=Mode.TCP),
            backend("proxied", 1003, policy=Policy(send_proxy=True)),
            backend("redirected", policy=Policy(redirect=Redirect("https"))),
            routes=routes,
            tcp_routes=(TcpRoute("t", "tcp", 5432),),
            hosts=(Host("good.test", redirect=True),),
        )
        applied = await adapter.apply(wanted, None, remove=True)
        assert applied.failed.keys() == {"good", "tcp", "proxied", "redirected"}
        assert "nonsense" in applied.failed["good"]
        assert await it.ask("good.test") == at(1001)
        assert await it.ask("bad.test") == (404, frozenset())
        lines = await adapter.plan(wanted)
        assert any("5432" in line for line in lines)
        assert any("good.test" in line for line in lines)
        await it.restart()

    play(api, etcd, scenario)


def test_a_plan_says_what_would_be_done_and_does_nothing(api: str, etcd: Etcd) -> None:
    async def scenario(it: World) -> None:
        adapter = it.adapter()
        await adapter.apply(desired(backend("blog", 1003)), None, remove=True)
        before = await it.tree()
        lines = await adapter.plan(desired(backend("shop", 1001)))
        assert [line.split()[0] for line in lines if not line.startswith("delete the")] == ["put"] * 3 + ["delete"] * 3
        assert await it.tree() == before

    play(api, etcd, scenario)


def test_a_former_leader_writes_nothing(api: str, etcd: Etcd) -> None:
    async def scenario(it: World) -> None:
        election = {"v2": ElectionV2, "v3": ElectionV3}[api](it.store, "leader", ttl=30)
        task = asyncio.create_task(election.run(lambda _: None))
        while not election.leads:
            await asyncio.sleep(0.01)
        stale: Fence | None = election.fence
        adapter, former = it.adapter(fence=lambda: election.fence), it.adapter(fence=lambda: stale)
        await adapter.apply(desired(backend("shop", 1001)), None, remove=True)
        await it.store.delete("leader")
        while election.fence is None or election.fence == stale:
            await asyncio.sleep(0.01)
        with pytest.raises(BalancerError, match="another registrator leads"):
            await former.apply(desired(backend("shop", 1002)), None, remove=True)
        assert await it.ask("shop.test") == at(1001)
        await adapter.apply(desired(backend("shop", 1002)), None, remove=True)
        assert await it.ask("shop.test") == at(1002)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        with pytest.raises(BalancerError, match="another registrator leads"):
            await adapter.apply(desired(backend("shop", 1003)), None, remove=True)

    play(api, etcd, scenario)


def test_a_vulcand_that_follows_no_more_is_found(api: str, etcd: Etcd) -> None:
    async def scenario(it: World) -> None:
        adapter = it.adapter(probe=(it.url,), patience=0.5)
        wanted = desired(backend("shop", 1001))
        await adapter.apply(wanted, None, remove=True)
        for _ in range(2):
            assert await adapter.drift(wanted) == frozenset()
            assert not (await adapter.apply(wanted, None, remove=True)).failed
        it.deaf = True
        assert await adapter.drift(wanted) == {f"({it.url})"}
        applied = await adapter.apply(wanted, {f"({it.url})"}, remove=True)
        assert applied.failed == {f"({it.url})": "it does not follow etcd any more: restart it"}
        it.deaf = False
        tree = await it.tree()
        for path, value in tree.items():  # a restart
            it.vulcand.put(path, str(value).replace("'", '"').replace("True", "true")) if path != "marker" else None
        assert await adapter.drift(wanted) == frozenset()
        assert not (await adapter.apply(wanted, None, remove=True)).failed
        await adapter.close()
        await it.adapter().apply(Desired(), None, remove=True)
        assert set(await it.tree()) <= {"marker"}

    play(api, etcd, scenario)


def test_without_etcd_nothing_is_lost(api: str, etcd: Etcd) -> None:
    async def scenario(it: World) -> None:
        adapter = it.adapter()
        await adapter.apply(desired(backend("shop", 1001)), None, remove=True)
        first = await adapter.identity()
        assert first
        etcd.stop()
        assert await adapter.identity() is None
        for work in (adapter.apply(Desired(), None, remove=True), adapter.drift(Desired()), adapter.plan(Desired())):
            with pytest.raises(BalancerError):
                await work
        await asyncio.to_thread(etcd.start)
        assert await adapter.identity() == first
        assert len(await it.tree()) == 4

    play(api, etcd, scenario)


def test_many_backends_are_written_in_an_order_that_vulcand_takes(api: str, etcd: Etcd) -> None:
    async def scenario(it: World) -> None:
        adapter = it.adapter()
        many = [backend(f"b{n}", *range(2000, 2000 + n % 5 + 1)) for n in range(120)]
        await adapter.apply(desired(*many), None, remove=True)
        await it.caught_up()
        assert not it.vulcand.refused
        for n in range(120):
            assert await asyncio.to_thread(it.vulcand.ask, "/", f"b{n}.test") == at(*range(2000, 2000 + n % 5 + 1))
        names = {path.split("/")[1] for path in await it.tree() if "/" in path}
        assert all(is_ours("coupler", name) for name in names)
        assert not [(a, b) for a in names for b in names if a != b and a.startswith(b)]
        await adapter.apply(desired(*many[:1]), None, remove=True)
        await it.caught_up()
        assert len(it.vulcand.frontends) == len(it.vulcand.backends) == 1
        await it.restart()

    play(api, etcd, scenario)
