"""Hosts over TLS: key pairs sealed into a real etcd, opened by the fake, and shown to clients that really ask."""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.contract.certificates import certificate, get, shown
from tests.contract.vulcand.world import APIS, SEAL_KEY, World, backend, desired, world

from coupler.registrator.balancers.vulcand.ids import host_id, is_ours
from coupler.registrator.balancers.vulcand.sealing import Pair, Sealer
from coupler.registrator.balancers.vulcand.tls import Tls
from coupler.registrator.model import Certificate, Desired, Host, Route

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tests.contract.etcd import Etcd

pytestmark = pytest.mark.parametrize("api", APIS)


def play(api: str, etcd: Etcd, scenario: Callable[[World], Awaitable[None]]) -> None:
    async def run() -> None:
        async with world(api, etcd, tls=Tls(SEAL_KEY, 443)) as made:
            await scenario(made)

    asyncio.run(run())


def hosts(**certificates: Certificate) -> Desired:
    """Return a state with one backend, and these hosts of `.test`; `any` is for all names that no other has."""
    names = {"" if name == "any" else f"{name}.test": each for name, each in certificates.items()}
    return desired(
        backend("shop", 1001),
        routes=[Route("all", "shop")],
        hosts=tuple(Host(name, each) for name, each in sorted(names.items())),
    )


def theirs(pair: Certificate, *, default: bool = False, key: bytes = SEAL_KEY) -> dict[str, object]:
    """Return the value of a host as somebody else writes it."""
    sealed = Sealer(key).seal(Pair(pair.chain.encode(), pair.key.encode()))
    return {"Name": "theirs", "Settings": {"Default": default, "KeyPair": sealed}}


async def sees(it: World, expected: Mapping[str, Certificate]) -> None:
    """Ask for each name, and compare the certificate that is shown."""
    await it.caught_up()
    for name, each in expected.items():
        assert (await asyncio.to_thread(shown, it.https_port, name)).strip() == each.chain.strip(), name


async def kept(it: World) -> dict[str, Any]:
    """Return the hosts in etcd."""
    return {path: value for path, value in (await it.tree()).items() if path.startswith("hosts/")}


def test_each_name_is_shown_its_certificate_and_an_audit_writes_none_again(api: str, etcd: Etcd) -> None:
    async def scenario(it: World) -> None:
        adapter = it.adapter()
        a, wild, rest = certificate("a.test", "b.test"), certificate("*.w.test"), certificate("none.invalid")
        wanted = hosts(a=a, any=rest, **{"*.w": wild})
        assert not (await adapter.apply(wanted, None, remove=True)).failed
        await sees(it, {"a.test": a, "b.test": a, "x.w.test": wild, "other.test": rest})
        assert (await asyncio.to_thread(get, it.https_port, "a.test"))[0] == 200
        before = await kept(it)
        assert len(before) == 3
        assert len({value["Settings"]["KeyPair"] for value in before.values()}) == 3
        for fresh in (adapter, it.adapter(tls=Tls(SEAL_KEY, 443))):
            assert await fresh.drift(wanted) == frozenset()
            assert (await fresh.apply(wanted, None, remove=True)).changes == 0
        assert await kept(it) == before
        again = certificate("a.test", "b.test")
        # a renewed certificate comes as a change of no backend
        renewed = await adapter.apply(hosts(a=again, any=rest, **{"*.w": wild}), frozenset(), remove=True)
        assert renewed.changes == 1
        await sees(it, {"a.test": again, "x.w.test": wild, "other.test": rest})
        await it.restart()
        assert (await adapter.apply(hosts(a=again), None, remove=False)).changes == 0
        await adapter.apply(hosts(a=again), None, remove=True)
        await sees(it, {"a.test": again, "x.w.test": again})
        await adapter.apply(hosts(), None, remove=True)
        await it.caught_up()
        with pytest.raises(ssl.SSLError):
            await asyncio.to_thread(shown, it.https_port, "a.test")
        assert await kept(it) == {}
        await it.restart()
        assert not it.vulcand.refused

    play(api, etcd, scenario)


def test_what_somebody_did_to_a_host_of_ours_is_found_and_mended(api: str, etcd: Etcd) -> None:
    async def scenario(it: World) -> None:
        adapter, a, rest = it.adapter(), certificate("a.test"), certificate("none.invalid")
        wanted = hosts(a=a, any=rest)
        await adapter.apply(wanted, None, remove=True)
        key = f"hosts/{host_id('coupler', 'a.test')}/host"
        good = (await it.tree())[key]
        for wrong in (
            "nothing",
            [],
            {"Name": "a.test"},
            {"Settings": []},
            {"Settings": {"KeyPair": 7}},
            {"Settings": {"KeyPair": "AAAA"}},
            {**good, "Settings": {**good["Settings"], "Default": True}},
            theirs(a, key=bytes(32)),
            theirs(rest),
        ):
            await it.put(key, json.dumps(wrong))
            assert await adapter.drift(wanted) == {"host a.test"}
            applied = await adapter.apply(wanted, {"host a.test"}, remove=True)
            assert (applied.changes, applied.failed) == (1, {})
            await sees(it, {"a.test": a, "other.test": rest})
            await it.restart()
        await it.delete(key)
        assert await adapter.drift(wanted) == {"host a.test"}
        await adapter.apply(wanted, None, remove=True)
        await sees(it, {"a.test": a})
        await it.restart()

    play(api, etcd, scenario)


def test_a_certificate_that_cannot_be_used_spoils_its_own_host_alone(api: str, etcd: Etcd) -> None:
    async def scenario(it: World) -> None:
        adapter = it.adapter()
        a, b, c = certificate("a.test"), certificate("b.test"), certificate("c.test")
        await adapter.apply(hosts(a=a, b=b, c=c), None, remove=True)
        newer, stranger, unreadable = (
            certificate("a.test"),
            certificate("x.test"),
            certificate("c.test", key=Ed25519PrivateKey.generate()),
        )
        applied = await adapter.apply(
            hosts(a=newer, any=unreadable, b=stranger, c=unreadable, d=stranger), None, remove=True
        )
        assert applied.failed.keys() == {"host (any)", "host b.test", "host c.test", "host d.test"}
        assert "other names" in applied.failed["host b.test"]
        assert "RSA" in applied.failed["host c.test"]
        await sees(it, {"a.test": newer, "b.test": b, "c.test": c})
        await it.restart()
        await adapter.apply(hosts(a=newer, b=certificate("b.test")), None, remove=True)
        assert len(await kept(it)) == 2

    play(api, etcd, scenario)


def test_hosts_of_others_are_never_touched_and_keep_their_place(api: str, etcd: Etcd) -> None:
    async def scenario(it: World) -> None:
        adapter, a, own = it.adapter(), certificate("a.test"), certificate("a.test", "also.test")
        for path, value in {
            "hosts/a.test/host": theirs(own, default=True),
            "hosts/plain.test/host": {"Name": "plain.test", "Settings": {"Default": False}},
            "hosts/c0ffee12-coupler.a.test.tls/host": theirs(certificate("y.test")),
        }.items():
            await it.put(path, value)
        before, b = await kept(it), certificate("b.test")
        wanted = hosts(a=a, b=b, any=certificate("none.invalid"))
        applied = await adapter.apply(wanted, None, remove=True)
        assert applied.failed.keys() == {"host a.test", "host (any)"}
        assert "hosts/a.test" in applied.failed["host a.test"]
        assert "default" in applied.failed["host (any)"]
        await sees(it, {"a.test": own, "b.test": b, "other.test": own})
        await adapter.apply(hosts(), None, remove=True)
        assert await kept(it) == before
        await it.store.delete(
            f"{'/' * (api == 'v2')}vulcand/hosts/a.test", **({"recursive": True} if api == "v2" else {"prefix": True})
        )
        assert not (await adapter.apply(wanted, None, remove=True)).failed
        await sees(it, {"a.test": a, "b.test": b})
        assert sum(is_ours("coupler", path.split("/")[1]) for path in await kept(it)) == 3

    play(api, etcd, scenario)


def test_a_key_that_does_not_open_the_hosts_of_others_writes_nothing(api: str, etcd: Etcd) -> None:
    async def scenario(it: World) -> None:
        adapter, a = it.adapter(), certificate("a.test")
        await adapter.apply(hosts(a=a), None, remove=True)
        await it.put("hosts/theirs.test/host", theirs(certificate("theirs.test")))
        stranger = it.adapter(tls=Tls(bytes(32), 443))
        before = await kept(it)
        applied = await stranger.apply(hosts(a=certificate("a.test")), None, remove=True)
        assert applied.failed.keys() == {"host a.test"}
        assert "hosts/theirs.test is sealed with another key" in applied.failed["host a.test"]
        assert await kept(it) == before
        await sees(it, {"a.test": a})

    play(api, etcd, scenario)


def test_without_a_seal_key_hosts_are_left_alone_and_a_dry_run_says_so(api: str, etcd: Etcd) -> None:
    async def scenario(it: World) -> None:
        a = certificate("a.test")
        await it.adapter().apply(hosts(a=a), None, remove=True)
        before, without = await kept(it), it.adapter(tls=None)
        state = desired(
            backend("shop", 1001),
            hosts=(Host("a.test", certificate("a.test"), redirect=True), Host("shop.test", redirect=True, hsts=60)),
        )
        assert not (await without.apply(state, None, remove=True)).failed
        assert await kept(it) == before
        assert (await asyncio.to_thread(get, it.http_port, "shop.test", tls=False))[0] == 200
        lines = await without.plan(state)
        assert sum("not served over TLS" in line for line in lines) == 2
        assert any("shop.test" in line and "HSTS" in line for line in lines)
        assert not any("not served over TLS" in line for line in await it.adapter().plan(state))

    play(api, etcd, scenario)


def test_plain_requests_are_sent_to_tls_where_their_host_wants_it(api: str, etcd: Etcd) -> None:
    async def scenario(it: World) -> None:
        shop, other = backend("shop", 1001), backend("other", 1002)
        routes = [Route("a", "shop", "a.test", "/api"), Route("w", "shop", "*.w.test"), Route("any", "other")]
        wanted = [
            Host("a.test", certificate("a.test"), redirect=True),
            Host("*.w.test", certificate("*.w.test"), redirect=True),
            Host("plain.w.test", certificate("plain.w.test")),
            Host("b.test", certificate("b.test")),
        ]
        adapter = it.adapter(tls=Tls(SEAL_KEY, it.https_port))
        state = desired(shop, other, routes=routes, hosts=tuple(wanted))
        assert not (await adapter.apply(state, None, remove=True)).failed
        await it.caught_up()

        async def asked(host: str, path: str, *, tls: bool = False, **headers: str) -> tuple[int, str | None]:
            status, answered, _ = await asyncio.to_thread(
                get, it.https_port if tls else it.http_port, host, path, tls=tls, headers=headers
            )
            return status, answered.get("location")

        target = f"https://{{}}:{it.https_port}{{}}"
        for host, path in [("a.test", "/api/x?q={{.Request}}"), ("a.test", "/y"), ("A.test", "/"), ("x.w.test", "/")]:
            assert await asked(host, path) == (302, target.format(host, path))
            assert await asked(host, path, tls=True) == (200, None)
            assert await asked(host, path, **{"X-Forwarded-Proto": "https"}) == (200, None)
        for host, path in [
            ("a.test", "/.well-known/acme-challenge/token"),
            ("plain.w.test", "/"),
            ("b.test", "/"),
            ("other.test", "/"),
            ("y.x.w.test", "/"),
        ]:
            assert await asked(host, path) == (200, None)
        assert await adapter.drift(state) == frozenset()
        await adapter.apply(desired(shop, other, routes=routes, hosts=tuple(wanted[2:])), None, remove=True)
        await it.caught_up()
        assert await asked("a.test", "/api") == (200, None)
        await it.restart()

    play(api, etcd, scenario)
