"""The HAProxy adapter, held to a real HAProxy under a load of real requests."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.contract.haproxy.moving import apply, site
from tests.contract.traffic import App, Load, eventually, free_port

from coupler.registrator.balancers import BalancerError
from coupler.registrator.balancers.haproxy.config import backend_name
from coupler.registrator.merge import merge
from coupler.registrator.model import Backend, Desired, Endpoint, Mode, Offer, Route, State, TcpRoute
from coupler.registrator.routing import explain

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.contract.haproxy.world import Balancer


pytestmark = pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")


def drained(desired: Desired, uid: str, state: State) -> Desired:
    backend = desired.backends["shop"]
    endpoints = tuple(
        Endpoint(e.uid, e.address, e.port, state if e.uid == uid else e.state, e.weight) for e in backend.endpoints
    )
    return merge([("test", Offer((replace(backend, endpoints=endpoints),), desired.routes))])


@pytest.mark.parametrize("haproxy", ["spawn", "master"], indirect=True)
def test_a_new_backend_reloads_once_and_its_servers_never(haproxy: Balancer, apps: Callable[..., App]) -> None:
    one, two = apps("one"), apps("two")
    with Load(haproxy.foreign_port) as foreign:
        adapter = apply(haproxy, site(one))
        assert haproxy.get() == (200, "one")
        assert adapter.reloads == 1
        pid = haproxy.pid()
        assert apply(haproxy, site(one, two)).reloads == 0
        assert {haproxy.get()[1] for _ in range(4)} == {"one", "two"}
        assert haproxy.pid() == pid
        foreign.more()
    assert foreign.failures == []
    assert set(foreign.answers) == {"theirs-0", "theirs-1"}


def test_an_instance_that_goes_finishes_its_requests_and_is_deleted(
    haproxy: Balancer, apps: Callable[..., App]
) -> None:
    one, two = apps("one"), apps("two")
    apply(haproxy, site(one, two))
    two.delay = 0.2
    with Load(haproxy.port) as load:
        eventually(lambda: two.served > 0, "no request reaches the second instance")
        apply(haproxy, site(one))
        two.stop()
        load.more()
    assert load.failures == []
    assert haproxy.servers()[backend_name(site(one).backends["shop"])] == ["coupler-one"]


@pytest.mark.parametrize("state", [State.DRAIN, State.DOWN])
def test_what_drains_or_is_not_ready_gets_no_new_request(
    haproxy: Balancer, apps: Callable[..., App], state: State
) -> None:
    one, two = apps("one"), apps("two")
    both = site(one, two)
    apply(haproxy, both)
    with Load(haproxy.port) as load:
        apply(haproxy, drained(both, "two", state))
        load.more(5)
        before = two.served
        load.more()
        assert two.served == before
        apply(haproxy, both)
        eventually(lambda: two.served > before, "the instance does not come back")
    assert load.failures == []


def test_what_drains_keeps_its_sticky_clients_until_it_is_down(haproxy: Balancer, apps: Callable[..., App]) -> None:
    one, two = apps("one"), apps("two")
    both = site(one, two, sticky_cookie="INSTANCE")
    apply(haproxy, both)
    cookies = dict(haproxy.cookie("INSTANCE") for _ in range(4))
    assert cookies.keys() == {"one", "two"}
    apply(haproxy, drained(both, "two", State.DRAIN))
    assert {haproxy.get(Cookie=f"INSTANCE={cookies['two']}") for _ in range(4)} == {(200, "two")}
    assert {haproxy.get() for _ in range(4)} == {(200, "one")}
    apply(haproxy, drained(both, "two", State.DOWN))
    assert {haproxy.get(Cookie=f"INSTANCE={cookies['two']}") for _ in range(4)} == {(200, "one")}


def test_an_address_and_a_weight_change_in_place(haproxy: Balancer, apps: Callable[..., App]) -> None:
    one, two = apps("one"), apps("two")
    apply(haproxy, site(one))
    moved = merge(
        [("t", Offer((Backend("shop", (Endpoint("one", "127.0.0.1", two.port, weight=7),)),), site(one).routes))]
    )
    assert apply(haproxy, moved).reloads == 0
    assert haproxy.get() == (200, "two")
    [row] = [line.split() for line in haproxy.ask("show servers state").splitlines() if " coupler-one " in line]
    assert row[7] == "7"


def test_settings_of_a_backend_change_without_a_failure(haproxy: Balancer, apps: Callable[..., App]) -> None:
    one = apps("one")
    apply(haproxy, site(one))
    with Load(haproxy.port) as load:
        apply(haproxy, site(one, sticky_cookie="INSTANCE", check_path="/health", read_timeout=3.5))
        load.more()
    assert load.failures == []
    assert [name for name in haproxy.servers() if name.startswith("coupler-shop:")] == [
        backend_name(site(sticky_cookie="INSTANCE", check_path="/health", read_timeout=3.5).backends["shop"])
    ]


def test_a_server_added_later_is_checked_too(haproxy: Balancer, apps: Callable[..., App]) -> None:
    one, two = apps("one"), apps("two")
    apply(haproxy, site(one, check_path="/health"))
    two.health = 503
    apply(haproxy, site(one, two, check_path="/health"))
    [line] = [line for line in haproxy.ask("show servers state").splitlines() if " coupler-two " in line]
    assert int(line.split()[13]) & 4, "its check is not enabled"
    eventually(lambda: {haproxy.get()[1] for _ in range(6)} == {"one"}, "an unhealthy instance keeps its traffic")


def test_drift_is_repaired_and_foreign_servers_stay(haproxy: Balancer, apps: Callable[..., App]) -> None:
    one, two, guest = apps("one"), apps("two"), apps("guest")
    desired = site(one, two)
    apply(haproxy, desired)
    name = backend_name(desired.backends["shop"])
    haproxy.ask("set server theirs/theirs-1 weight 3")
    haproxy.ask(f"add server {name}/guest 127.0.0.1:{guest.port} weight 1")
    haproxy.ask(f"add server {name}/coupler-stray 127.0.0.1:{guest.port}")
    haproxy.ask(f"set server {name}/coupler-one state maint; set server {name}/coupler-two weight 1")
    haproxy.ask(f"clear map {haproxy.settings().map_path('prefix')}")
    foreign = [line.split()[:10] for line in haproxy.ask("show servers state theirs").splitlines() if "theirs-" in line]
    assert haproxy.get()[0] == 404
    assert apply(haproxy, desired).reloads == 0
    assert haproxy.get()[0] == 200
    assert sorted(haproxy.servers()[name]) == ["coupler-one", "coupler-two", "guest"]
    rows = [line.split() for line in haproxy.ask("show servers state").splitlines()]
    assert [row[:9] for row in rows if len(row) > 18 and row[1] == "theirs"] == [row[:9] for row in foreign]
    assert {row[3]: row[6:8] for row in rows if len(row) > 18 and row[3].startswith("coupler-")} == {
        "coupler-one": ["0", "100"],
        "coupler-two": ["0", "100"],
    }


def test_a_port_that_is_taken_harms_its_own_route_alone(haproxy: Balancer, apps: Callable[..., App]) -> None:
    one, other = apps("one"), apps("other")
    apply(haproxy, site(one))
    tcp = Backend("db", (Endpoint("db", "127.0.0.1", one.port),), Mode.TCP)
    offer = Offer((*site(one).backends.values(), tcp), site(one).routes, (TcpRoute("db", "db", other.port),))
    with Load(haproxy.port) as load:
        done = asyncio.run(haproxy.adapter().apply(merge([("t", offer)]), None, remove=True))
        load.more()
    assert done.failed == {"db": f"cannot listen on 127.0.0.1:{other.port}: Address already in use"}
    assert load.failures == []
    assert haproxy.get(port=other.port) == (200, "other")


@pytest.mark.parametrize("haproxy", ["spawn", "master"], indirect=True)
def test_a_configuration_with_which_haproxy_does_not_start_is_rolled_back(
    haproxy: Balancer, apps: Callable[..., App]
) -> None:
    one = apps("one")
    apply(haproxy, site(one))
    text, pid = haproxy.config.read_text(), haproxy.pid()
    binds = (f"127.0.0.1:{haproxy.port}", f"127.0.0.1:{apps('other').port}")
    adapter = haproxy.adapter(binds=binds, patience=3.0)
    done = asyncio.run(adapter.apply(site(one), None, remove=True))
    assert list(done.failed) == ["(frontends)"]
    assert haproxy.config.read_text() == text
    assert haproxy.pid() == pid
    eventually(lambda: haproxy.answers() == (200, "one"), "the old process does not go on")


def test_a_file_that_haproxy_refuses_is_never_in_place(haproxy: Balancer, apps: Callable[..., App]) -> None:
    apply(haproxy, site(apps("one")))
    text = haproxy.config.read_text()
    haproxy.base.write_text(haproxy.base.read_text() + "  nonsense here\n")
    with pytest.raises(BalancerError) as caught:
        asyncio.run(haproxy.adapter().persist(site(apps("two"))))
    assert "nonsense" in str(caught.value.why)
    assert haproxy.config.read_text() == text


def test_tcp_goes_through_its_own_port(haproxy: Balancer, apps: Callable[..., App]) -> None:
    one, port = apps("one"), free_port()
    tcp = Backend("raw", (Endpoint("one", "127.0.0.1", one.port),), Mode.TCP)
    apply(haproxy, merge([("t", Offer((tcp,), (), (TcpRoute("raw", "raw", port),)))]))
    assert haproxy.get(port=port) == (200, "one")
    apply(haproxy, Desired())
    with pytest.raises(OSError, match="refused"):
        haproxy.get(port=port)


ROUTES = (
    ("any", {}),
    ("any-deep", {"path": "/deep/er"}),
    ("any-exact", {"path": "/x", "exact": True}),
    ("wild", {"host": "*.shop.test"}),
    ("wild-x", {"host": "*.shop.test", "path": "/x", "exact": True}),
    ("shop-a", {"host": "shop.test", "path": "/a"}),
    ("shop-ab", {"host": "shop.test", "path": "/a/b/"}),
    ("shop-ab-exact", {"host": "shop.test", "path": "/a/b/", "exact": True}),
    ("canary", {"host": "shop.test", "path": "/a/b/c", "headers": (("X-Canary", "yes"),)}),
    ("canary-two", {"host": "shop.test", "path": "/a/b/c", "headers": (("X-Canary", "yes"), ("X-Who", "its"))}),
    ("head", {"host": "head.test", "headers": (("X-Canary", "yes"),)}),
    ("wild-head", {"host": "*.shop.test", "path": "/deep", "headers": (("X-Canary", "no; drop"),)}),
)  # fmt: skip


def test_haproxy_routes_as_explain_says(haproxy: Balancer, apps: Callable[..., App]) -> None:
    started = {name: apps(name) for name, _ in ROUTES}
    backends = tuple(Backend(name, (Endpoint("e", "127.0.0.1", app.port),)) for name, app in started.items())
    offer = Offer(backends, tuple(Route(name, name, **match) for name, match in ROUTES))  # type: ignore[arg-type]
    desired = merge([("t", offer)])
    assert desired.problems == ()
    apply(haproxy, desired)
    taken = set()
    for host in ("shop.test", "SHOP.test:80", "a.shop.test", "a.b.shop.test", "other", "head.test"):
        for path in ("/", "/a", "/ab", "/a/b", "/a/b/", "/a/b/c/d?q=/x", "/x", "/x/", "/deep", "/deep/er/"):
            for headers in ({}, {"X-Canary": "yes"}, {"X-Canary": "yes", "X-Who": "its"}, {"X-Canary": "no; drop"}):
                said = explain(desired.routes, host, path, headers)
                assert said[-1].takes
                assert haproxy.get(path, host, **headers) == (200, said[-1].route.backend), (host, path, headers)
                taken.add(said[-1].route.id)
    assert taken == {name for name, _ in ROUTES}


def test_many_routes_and_servers_are_moved_in_one_piece(haproxy: Balancer, apps: Callable[..., App]) -> None:
    one = apps("one")
    endpoints = tuple(Endpoint(f"e-{n}", "127.0.0.1", one.port) for n in range(300))
    routes = tuple(Route(f"r-{n}", "shop", "shop.test", f"/some/long/path/number/{n}") for n in range(800))
    first = merge([("t", Offer((Backend("shop", endpoints[:1]),), (Route("r", "shop", "shop.test"),)))])
    apply(haproxy, first)
    many = merge([("t", Offer((Backend("shop", endpoints),), (*routes, *first.routes)))])
    with Load(haproxy.port) as load:
        assert apply(haproxy, many).reloads == 0
        load.more()
    assert load.failures == []
    assert len(haproxy.servers()[backend_name(many.backends["shop"])]) == 300
    lines = asyncio.run(haproxy.adapter().plan(many))
    assert not [line for line in lines if line.startswith(("add", "set", "del", "reload"))]


def test_without_leave_to_remove_nothing_goes(haproxy: Balancer, apps: Callable[..., App]) -> None:
    one, two = apps("one"), apps("two")
    apply(haproxy, site(one, two))
    before, text = haproxy.servers(), haproxy.config.read_text()
    asyncio.run(haproxy.adapter().apply(site(one), None, remove=False))
    asyncio.run(haproxy.adapter().apply(Desired(), None, remove=False))
    adapter = haproxy.adapter()
    asyncio.run(adapter.prepare(Desired()))
    another = asyncio.run(adapter.apply(site(one, read_timeout=5.0), None, remove=False))
    assert (another.pending, adapter.reloads) == ({"shop"}, 0), "a reload would drop what a source has not said yet"
    assert haproxy.servers() == before
    assert haproxy.config.read_text() == text
    assert haproxy.get()[0] == 200
