"""What somebody else did to HAProxy is found without touching it, and repaired without a failure."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from typing import TYPE_CHECKING

import pytest
from tests.contract.certificates import certificate
from tests.contract.haproxy.identity import der, served
from tests.contract.haproxy.moving import apply, settle, site
from tests.contract.traffic import App, Load, eventually

from coupler.registrator.balancers import BalancerError
from coupler.registrator.balancers.haproxy.config import backend_name, server_name
from coupler.registrator.balancers.haproxy.servers import parse_servers
from coupler.registrator.merge import merge, refresh
from coupler.registrator.model import Backend, Desired, Endpoint, Host, Offer, Policy, Route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.contract.haproxy.world import Balancer

    from coupler.registrator.balancers.haproxy.adapter import HAProxy

pytestmark = pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")
SECURED = pytest.mark.parametrize("haproxy", ["spawn-tls", "master-tls"], indirect=True)


@contextlib.asynccontextmanager
async def moved(haproxy: Balancer, desired: Desired) -> AsyncIterator[HAProxy]:
    """An adapter that has moved HAProxy to `desired`."""
    adapter = haproxy.adapter()
    await settle(adapter, desired)
    yield adapter
    await adapter.close()


def two_backends(*apps: App, hosts: tuple[Host, ...] = (), **policy: object) -> Desired:
    backends = tuple(
        Backend(app.app_name, (Endpoint("e", "127.0.0.1", app.port),), policy=Policy(**policy))  # type: ignore[arg-type]
        for app in apps
    )
    routes = tuple(Route(app.app_name, app.app_name, f"{app.app_name}.test") for app in apps)
    return merge([("t", Offer(backends, routes, hosts=hosts))])


Damage = dict[str, "Callable[[Balancer, Desired], object]"]
DAMAGES: Damage = {
    "one": lambda h, d: h.ask(f"set server {backend_name(d.backends['one'])}/coupler-e weight 3"),
    "two": lambda h, d: h.ask(f"add server {backend_name(d.backends['two'])}/coupler-stray 127.0.0.1:9"),
    "(routes)": lambda h, d: h.ask(f"clear map {h.settings().map_path('prefix')}"),
    "(certificates)": lambda h, d: [path.unlink() for path in h.settings().certificate_folder.iterdir()],
    "(file)": lambda h, d: h.config.write_text(h.config.read_text() + "\n# by hand\n"),
}


@pytest.mark.parametrize("haproxy", ["spawn-tls"], indirect=True)
@pytest.mark.parametrize("names", [*((name,) for name in DAMAGES), tuple(DAMAGES)], ids="+".join)
def test_drift_is_found_and_repaired(haproxy: Balancer, apps: Callable[..., App], names: tuple[str, ...]) -> None:
    own = certificate("one.test")
    desired = two_backends(apps("one"), apps("two"), hosts=(Host("one.test", own),))

    async def run() -> None:
        async with moved(haproxy, desired) as adapter:
            assert await adapter.drift(desired) == frozenset()
            for name in names:
                DAMAGES[name](haproxy, desired)
            state, text = parse_servers(haproxy.ask("show servers state")), haproxy.config.read_text()
            found = await adapter.drift(desired)
            assert found == set(names)
            assert parse_servers(haproxy.ask("show servers state")) == state
            assert haproxy.config.read_text() == text
            done = await adapter.apply(desired, found, remove=True)
            assert (done.failed, done.pending) == ({}, frozenset())
            assert await adapter.drift(desired) == frozenset()
            assert adapter.reloads == 1

    with Load(haproxy.foreign_port) as foreign:
        asyncio.run(run())
        foreign.more()
    assert foreign.failures == []
    assert haproxy.get(host="one.test") == (200, "one")
    assert served(haproxy.tls_port, "one.test") == der(own)


@pytest.mark.parametrize("haproxy", ["spawn-tls"], indirect=True)
def test_a_certificate_exchanged_behind_our_back_is_put_right(haproxy: Balancer) -> None:
    own, theirs = certificate("shop.test"), certificate("shop.test")
    desired = site(hosts=(Host("shop.test", own),))

    async def run() -> None:
        async with moved(haproxy, desired) as adapter:
            path = next(haproxy.settings().certificate_folder.iterdir())
            haproxy.ask(f"set ssl cert {path} <<\n{theirs.pem}")
            haproxy.ask(f"commit ssl cert {path}")
            haproxy.ask(f"add ssl crt-list {haproxy.settings().certificate_list} <<\n{path} else.test\n")
            assert served(haproxy.tls_port, "else.test") == der(theirs)
            assert await adapter.drift(desired) == {"(certificates)"}
            await adapter.apply(desired, {"(certificates)"}, remove=True)
            assert await adapter.drift(desired) == frozenset()

    asyncio.run(run())
    assert served(haproxy.tls_port, "shop.test") == der(own)
    assert served(haproxy.tls_port, "else.test") is None


def test_what_waits_for_a_reload_and_what_is_left_over_is_drift(haproxy: Balancer, apps: Callable[..., App]) -> None:
    before, after = two_backends(apps("one")), two_backends(apps("two"))

    async def run() -> None:
        async with moved(haproxy, before) as adapter:
            assert await adapter.drift(after) == {"two", backend_name(before.backends["one"]), "(routes)", "(file)"}

    asyncio.run(run())


@SECURED
def test_a_reload_by_hand_is_made_good(haproxy: Balancer, apps: Callable[..., App]) -> None:
    one, two, own = apps("one"), apps("two"), certificate("shop.test")
    first = site(one, hosts=(Host("shop.test", own),))
    second = site(one, two, hosts=(Host("shop.test", own),))
    changed = merge([("t", Offer((Backend("shop", second.backends["shop"].endpoints[1:]),)))]).backends["shop"]

    async def run() -> None:
        async with moved(haproxy, first) as adapter:
            await adapter.apply(second, {"shop"}, remove=True)  # the file does not know of it yet
            before = await adapter.identity()
            await asyncio.to_thread(reload_by_hand, haproxy)
            assert await adapter.identity() != before
            third = refresh(second, [("t", Offer((changed,)))], {"shop"})
            assert third is not None
            done = await adapter.apply(third, {"shop"}, remove=True)
            while done.pending:
                done = await adapter.apply(third, done.pending, remove=True)
            assert await adapter.drift(third) == frozenset()

    apply(haproxy, first)
    with Load(haproxy.port) as load:
        asyncio.run(run())
        load.more()
    assert load.failures == []
    assert haproxy.get() == (200, "two")
    assert served(haproxy.tls_port, "shop.test") == der(own)


def reload_by_hand(haproxy: Balancer) -> None:
    """Do what an administrator does: a signal to the master, or a successor by `-sf`."""
    pid = haproxy.pid()
    assert haproxy.process is not None
    if haproxy.master:
        os.kill(haproxy.process.pid, signal.SIGUSR2)
    else:
        haproxy.succeed()
    eventually(lambda: haproxy.pid() not in {None, pid}, "no new process comes")


@SECURED
def test_without_haproxy_nothing_is_moved_and_after_its_start_all_is_right(
    haproxy: Balancer, apps: Callable[..., App]
) -> None:
    one, two, own = apps("one"), apps("two"), certificate("shop.test")
    first, second = (site(*some, hosts=(Host("shop.test", own, hsts=1),)) for some in ((one,), (one, two)))

    async def run() -> None:
        async with moved(haproxy, first) as adapter:
            await adapter.apply(second, {"shop"}, remove=True)
            await adapter.persist(second)
            haproxy.kill()
            assert await adapter.identity() is None
            for asked in (None, {"shop"}):
                with pytest.raises(BalancerError):
                    await adapter.apply(second, asked, remove=True)
            with pytest.raises(BalancerError):
                await adapter.drift(second)
            await asyncio.to_thread(haproxy.start)
            assert {haproxy.get()[1] for _ in range(4)} == {"one", "two"}
            assert await adapter.identity() is not None
            assert await adapter.drift(second) == frozenset()
            done = await adapter.apply(second, {"shop"}, remove=True)
            assert (done.failed, done.changes) == ({}, 0)

    asyncio.run(run())
    assert served(haproxy.tls_port, "shop.test") == der(own)


def test_a_storm_of_new_backends_costs_few_reloads(haproxy: Balancer, apps: Callable[..., App]) -> None:
    one = apps("one")
    now = 100.0
    adapter = haproxy.adapter(interval=5.0, clock=lambda: now)

    def many(count: int) -> Desired:
        backends = tuple(Backend(f"b-{n}", (Endpoint("e", "127.0.0.1", one.port),)) for n in range(count))
        return merge([("t", Offer(backends, tuple(Route(b.id, b.id, f"{b.id}.test") for b in backends)))])

    async def run() -> None:
        nonlocal now
        done = await adapter.apply(many(1), None, remove=True)
        assert (done.pending, adapter.reloads) == (frozenset(), 1)
        for count in range(2, 12):
            done = await adapter.apply(many(count), {f"b-{count - 1}"}, remove=True)
        assert done.pending == {f"b-{n}" for n in range(1, 11)}
        assert (done.failed, adapter.reloads) == ({}, 1)
        now += 5
        await adapter.apply(many(11), done.pending, remove=True)
        await adapter.close()

    with Load(haproxy.foreign_port) as foreign:
        asyncio.run(run())
        foreign.more()
    assert foreign.failures == []
    assert adapter.reloads == 2
    assert [haproxy.get(host=f"b-{n}.test")[0] for n in range(11)] == [200] * 11


def test_a_configuration_that_did_not_start_is_not_written_either(haproxy: Balancer, apps: Callable[..., App]) -> None:
    one = apps("one")
    apply(haproxy, site(one))
    text = haproxy.config.read_text()
    binds = (f"127.0.0.1:{haproxy.port}", f"127.0.0.1:{apps('other').port}")
    adapter = haproxy.adapter(patience=3.0, binds=binds)

    async def run() -> None:
        assert (await adapter.apply(site(one), None, remove=True)).failed
        with pytest.raises(BalancerError, match="did not start"):
            await adapter.persist(site(one))
        await adapter.close()

    asyncio.run(run())
    assert haproxy.config.read_text() == text


def test_one_backend_is_moved_among_many_without_a_look_at_the_others(
    haproxy: Balancer, apps: Callable[..., App]
) -> None:
    one, two = apps("one"), apps("two")
    desired = two_backends(one, two)
    stray = f"{backend_name(desired.backends['two'])}/coupler-stray"

    async def run() -> None:
        async with moved(haproxy, desired) as adapter:
            haproxy.ask(f"add server {stray} 127.0.0.1:9")
            moving = Backend("one", (Endpoint("n", "127.0.0.1", two.port),))
            after = refresh(desired, [("t", Offer((moving,)))], {"one"})
            assert after is not None
            done = await adapter.apply(after, {"one"}, remove=True)
            while done.pending:
                assert done.pending == {"one"}
                done = await adapter.apply(after, done.pending, remove=True)
            assert haproxy.servers()[backend_name(moving)] == [server_name(moving.endpoints[0])]
            assert "coupler-stray" in haproxy.servers()[stray.partition("/")[0]]
            await adapter.apply(after, {"no backend at all"}, remove=True)
            assert "coupler-stray" not in haproxy.servers()[stray.partition("/")[0]]

    asyncio.run(run())


def test_a_policy_that_comes_back_does_not_lose_its_servers(haproxy: Balancer, apps: Callable[..., App]) -> None:
    one = apps("one")
    plain, sticky = site(one), site(one, sticky_cookie="C")
    name = backend_name(plain.backends["shop"])

    async def run() -> None:
        async with moved(haproxy, plain) as adapter:
            await settle(adapter, sticky)
            await settle(adapter, plain)
            assert (await adapter.apply(plain, {name}, remove=True)).failed == {}

    apply(haproxy, plain)
    with Load(haproxy.port) as load:
        asyncio.run(run())
        load.more()
    assert load.failures == []
    assert haproxy.servers()[name] == ["coupler-one"]
