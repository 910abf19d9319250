"""TLS by HAProxy: certificates by name through the runtime API, kept for its next start, and what goes by host."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import stat
from typing import TYPE_CHECKING

import pytest
from tests.contract.certificates import certificate, get, shown
from tests.contract.haproxy.test_balancer import settle
from tests.contract.haproxy.world import Balancer
from tests.contract.traffic import App, Load, eventually

from coupler.registrator.merge import merge
from coupler.registrator.model import Backend, Certificate, Desired, Endpoint, Host, Offer, Route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from coupler.registrator.balancers.haproxy.adapter import HAProxy

pytestmark = pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")
SHOP, WILD, LATER = certificate("shop.test"), certificate("*.shop.test"), certificate("shop.test")


@pytest.fixture
def secure(tmp_path: Path, apps: Callable[..., App]) -> Iterator[Balancer]:
    """A HAProxy that listens for TLS and has no certificate yet."""
    balancer = Balancer(tmp_path, (apps("theirs-0"), apps("theirs-1")), tls=True)
    balancer.write_base()
    asyncio.run(balancer.adapter().prepare(Desired()))
    balancer.start()
    yield balancer
    balancer.kill()


def site(app: App, *hosts: Host) -> Desired:
    backend = Backend("shop", (Endpoint("one", "127.0.0.1", app.port),))
    routes = (Route("shop", "shop", "shop.test"), Route("wild", "shop", "*.shop.test"))
    return merge([("t", Offer((backend,), routes, hosts=hosts))])


def apply(balancer: Balancer, *states: Desired) -> HAProxy:
    """Apply one state after the other by one adapter."""
    adapter = balancer.adapter()

    async def run() -> None:
        for desired in states:
            await settle(adapter, desired)
        await adapter.close()

    asyncio.run(run())
    return adapter


def test_each_name_is_shown_its_own_certificate_and_a_stranger_none(secure: Balancer, apps: Callable[..., App]) -> None:
    one = apps("one")
    apply(secure, site(one))
    adapter = apply(secure, site(one, Host("shop.test", SHOP), Host("*.shop.test", WILD)))
    assert adapter.reloads == 0, "a certificate takes no reload"
    assert shown(secure.tls_port, "shop.test") == SHOP.chain
    assert shown(secure.tls_port, "a.shop.test") == WILD.chain
    with pytest.raises(ssl.SSLError):
        shown(secure.tls_port, "other.test")
    assert get(secure.tls_port, "shop.test")[0::2] == (200, "one")
    assert one.headers["x-forwarded-proto"] == "https"


def test_a_default_certificate_is_for_names_without_one(secure: Balancer, apps: Callable[..., App]) -> None:
    one, default = apps("one"), certificate("default.test")
    apply(secure, site(one, Host("shop.test", SHOP)))
    apply(secure, site(one, Host("shop.test", SHOP), Host("", default)))
    assert shown(secure.tls_port, "other.test") == default.chain
    assert shown(secure.tls_port, "shop.test") == SHOP.chain


def test_a_renewed_certificate_is_shown_at_once_and_no_connection_is_cut(
    secure: Balancer, apps: Callable[..., App]
) -> None:
    one = apps("one")
    adapter = apply(secure, site(one, Host("shop.test", SHOP)))
    with Load(secure.port) as load, socket.create_connection(("127.0.0.1", secure.tls_port), timeout=10) as plain:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(plain, server_hostname="shop.test") as old:
            adapter = apply(secure, site(one, Host("shop.test", LATER)))
            assert adapter.reloads == 0
            assert shown(secure.tls_port, "shop.test") == LATER.chain
            old.sendall(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            assert old.recv(1000).startswith(b"HTTP/1.1 200")
        load.more()
    assert load.failures == []


def test_a_host_that_goes_takes_its_certificate_and_its_file_with_it(
    secure: Balancer, apps: Callable[..., App]
) -> None:
    one = apps("one")
    apply(secure, site(one, Host("shop.test", SHOP), Host("*.shop.test", WILD)))
    folder = secure.settings().certificate_folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()] == [0o600, 0o600]
    apply(secure, site(one, Host("*.shop.test", WILD)))
    assert len(list(folder.iterdir())) == 1
    with pytest.raises(ssl.SSLError):
        shown(secure.tls_port, "shop.test")


def test_the_next_start_has_the_same_certificates(secure: Balancer, apps: Callable[..., App]) -> None:
    one = apps("one")
    apply(secure, site(one, Host("shop.test", SHOP)), site(one, Host("shop.test", LATER), Host("*.shop.test", WILD)))
    secure.kill()
    secure.start()
    assert shown(secure.tls_port, "shop.test") == LATER.chain
    assert shown(secure.tls_port, "a.shop.test") == WILD.chain


def test_a_certificate_that_haproxy_refuses_harms_its_own_host_and_the_last_good_one_stays(
    secure: Balancer, apps: Callable[..., App]
) -> None:
    one, bad = apps("one"), object.__new__(Certificate)
    object.__setattr__(bad, "chain", SHOP.chain)
    object.__setattr__(bad, "key", LATER.key)
    apply(secure, site(one, Host("shop.test", SHOP)))

    async def run() -> None:
        adapter = secure.adapter()
        wrong = site(one, Host("shop.test", bad), Host("*.shop.test", WILD))
        done = await adapter.apply(wrong, None, remove=True)
        assert list(done.failed) == ["host shop.test"]
        await adapter.persist(wrong)
        await adapter.close()

    asyncio.run(run())
    for _ in range(2):
        assert shown(secure.tls_port, "shop.test") == SHOP.chain
        assert shown(secure.tls_port, "a.shop.test") == WILD.chain
        secure.kill()
        secure.start()


def test_plain_requests_are_sent_to_tls_but_for_the_authority(secure: Balancer, apps: Callable[..., App]) -> None:
    one = apps("one")
    apply(secure, site(one, Host("shop.test", SHOP)))
    adapter = apply(secure, site(one, Host("shop.test", SHOP, redirect=True, hsts=60)))
    assert adapter.reloads == 0, "a redirect takes no reload"
    status, headers, _ = get(secure.port, "shop.test", "/cart?id=1", tls=False)
    assert (status, headers["location"]) == (308, f"https://shop.test:{secure.tls_port}/cart?id=1")
    assert get(secure.port, "shop.test", "/.well-known/acme-challenge/token", tls=False)[0::2] == (200, "one")
    assert get(secure.port, "a.shop.test", tls=False)[0::2] == (200, "one")
    status, headers, _ = get(secure.tls_port, "shop.test")
    assert (status, headers["strict-transport-security"]) == (200, "max-age=60")


def test_certificates_changed_behind_our_back_are_drift_and_repaired(
    secure: Balancer, apps: Callable[..., App]
) -> None:
    desired = site(apps("one"), Host("shop.test", SHOP))

    async def run() -> None:
        adapter = secure.adapter()
        await settle(adapter, desired)
        assert await adapter.drift(desired) == frozenset()
        [file] = secure.settings().certificate_folder.iterdir()
        pem = LATER.pem.replace("\n\n", "\n")
        secure.ask(f"set ssl cert {file} <<\n{pem}\n")
        secure.ask(f"commit ssl cert {file}")
        assert shown(secure.tls_port, "shop.test") == LATER.chain
        drifted = await adapter.drift(desired)
        assert drifted
        await adapter.apply(desired, drifted, remove=True)
        assert await adapter.drift(desired) == frozenset()
        file.unlink()
        drifted = await adapter.drift(desired)
        assert drifted
        await adapter.apply(desired, drifted, remove=True)
        assert file.read_text() == SHOP.pem
        await adapter.close()

    asyncio.run(run())
    eventually(lambda: shown(secure.tls_port, "shop.test") == SHOP.chain, "the right one does not come back")
