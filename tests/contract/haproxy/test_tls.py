"""TLS by host: what clients are served, and that no certificate costs a reload."""

from __future__ import annotations

import asyncio
import shutil
import socket
import stat
from typing import TYPE_CHECKING

import pytest
from tests.contract.certificates import certificate
from tests.contract.haproxy.identity import ask, broken, connect, der, lengthened, served
from tests.contract.haproxy.moving import apply, site
from tests.contract.traffic import App, Load

from coupler.registrator.model import ACME_PATH, Desired, Host

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.contract.haproxy.world import Balancer

    from coupler.registrator.model import Certificate

pytestmark = [
    pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed"),
    pytest.mark.parametrize("haproxy", ["spawn-tls"], indirect=True),
]


def files(haproxy: Balancer) -> dict[str, str]:
    return {path.name: path.read_text() for path in haproxy.settings().certificate_folder.iterdir()}


def again(haproxy: Balancer) -> None:
    """Start HAProxy anew from its files."""
    haproxy.kill()
    haproxy.start()


def test_without_any_certificate_every_handshake_is_refused(haproxy: Balancer, apps: Callable[..., App]) -> None:
    apply(haproxy, site(apps("one")))
    assert haproxy.get() == (200, "one")
    assert served(haproxy.tls_port, "shop.test") is None
    assert served(haproxy.tls_port, None) is None


def test_certificates_come_change_and_go_without_a_reload(haproxy: Balancer, apps: Callable[..., App]) -> None:
    one, first, second, other = apps("one"), certificate("shop.test"), certificate("shop.test"), certificate("b.test")
    apply(haproxy, site(one))
    pid = haproxy.pid()
    with Load(haproxy.port) as load:
        apply(haproxy, site(one, hosts=(Host("shop.test", first), Host("b.test", other))))
        assert served(haproxy.tls_port, "shop.test") == der(first)
        assert served(haproxy.tls_port, "b.test") == der(other)
        assert served(haproxy.tls_port, "c.test") is None
        with connect(haproxy.tls_port, "shop.test") as kept:
            assert ask(kept, "shop.test")[0] == 200
            apply(haproxy, site(one, hosts=(Host("shop.test", second), Host("b.test", other))))
            assert served(haproxy.tls_port, "shop.test") == der(second)
            assert ask(kept, "shop.test")[2] == b"one"
        apply(haproxy, site(one, hosts=(Host("shop.test", second), Host("b.test"))))
        assert served(haproxy.tls_port, "b.test") is None
        load.more()
    assert load.failures == []
    assert haproxy.pid() == pid
    assert list(files(haproxy).values()) == [second.pem]
    again(haproxy)
    assert served(haproxy.tls_port, "shop.test") == der(second)
    assert served(haproxy.tls_port, "b.test") is None


def test_keys_are_for_their_owner_alone(haproxy: Balancer) -> None:
    apply(haproxy, site(hosts=(Host("shop.test", certificate("shop.test")),)))
    folder = haproxy.settings().certificate_folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()] == [0o600]


def test_a_wildcard_serves_what_has_no_certificate_of_its_own(haproxy: Balancer) -> None:
    wild, own = certificate("wild"), certificate("own")
    apply(haproxy, site(hosts=(Host("*.shop.test", wild), Host("a.shop.test", own))))
    names = ("a.shop.test", "b.shop.test", "shop.test", "x.b.shop.test")
    assert [served(haproxy.tls_port, name) for name in names] == [der(own), der(wild), None, None]


def test_a_default_serves_every_other_name(haproxy: Balancer, apps: Callable[..., App]) -> None:
    one, default, renewed, own = apps("one"), certificate("shop.test"), certificate("d"), certificate("own")
    hosts = (Host("shop.test", own),)
    apply(haproxy, site(one, hosts=hosts))
    with Load(haproxy.port) as load:
        assert apply(haproxy, site(one, hosts=(*hosts, Host("", default)))).reloads == 1
        names = ("shop.test", "else.test", None)
        assert [served(haproxy.tls_port, name) for name in names] == [der(own), der(default), der(default)]
        assert apply(haproxy, site(one, hosts=(*hosts, Host("", renewed)))).reloads == 0
        assert served(haproxy.tls_port, "else.test") == der(renewed)
        assert apply(haproxy, site(one, hosts=hosts)).reloads == 1
        assert [served(haproxy.tls_port, name) for name in names] == [der(own), None, None]
        load.more()
    assert load.failures == []


def test_a_certificate_that_haproxy_refuses_harms_its_host_alone(haproxy: Balancer, apps: Callable[..., App]) -> None:
    one, good, other, next_one = (apps("one"), *(certificate("x") for _ in range(3)))
    apply(haproxy, site(one, hosts=(Host("shop.test", good),)))
    bad = broken(next_one, other)
    desired = site(one, hosts=(Host("shop.test", bad), Host("new.test", bad), Host("b.test", other)))
    adapter = haproxy.adapter()
    done = asyncio.run(adapter.apply(desired, None, remove=True))
    assert set(done.failed) == {"host shop.test", "host new.test"}
    assert "inconsistencies between private key and certificate" in done.failed["host new.test"]
    assert [served(haproxy.tls_port, name) for name in ("shop.test", "b.test")] == [der(good), der(other)]
    assert served(haproxy.tls_port, "new.test") is None
    again(haproxy)
    assert [served(haproxy.tls_port, name) for name in ("shop.test", "b.test")] == [der(good), der(other)]
    assert apply(haproxy, site(one, hosts=(Host("shop.test", other),))).reloads == 0
    assert served(haproxy.tls_port, "shop.test") == der(other)


def test_a_chain_too_long_for_the_runtime_api_takes_a_reload(haproxy: Balancer, apps: Callable[..., App]) -> None:
    one, plain = apps("one"), certificate("shop.test")
    apply(haproxy, site(one, hosts=(Host("shop.test", plain),)))
    large: Certificate = lengthened(certificate("shop.test"), 40)
    assert len(large.pem) > 16_384
    with Load(haproxy.port) as load:
        assert apply(haproxy, site(one, hosts=(Host("shop.test", large),))).reloads == 1
        assert served(haproxy.tls_port, "shop.test") == der(large)
        load.more()
    assert load.failures == []


def test_an_intermediate_alone_may_change(haproxy: Balancer) -> None:
    leaf = certificate("shop.test")
    apply(haproxy, site(hosts=(Host("shop.test", leaf),)))
    longer = lengthened(leaf, 1)
    apply(haproxy, site(hosts=(Host("shop.test", longer),)))
    shown = haproxy.ask(f"show ssl cert {next(haproxy.settings().certificate_folder.iterdir())}")
    assert "Chain Subject: /CN=ca-0" in shown


def test_plain_requests_are_sent_to_tls_but_for_the_authority(haproxy: Balancer, apps: Callable[..., App]) -> None:
    one = apps("one")
    own = certificate("shop.test")
    apply(haproxy, site(one, hosts=(Host("shop.test", own),)))
    assert haproxy.get()[0] == 200
    secured = Host("shop.test", own, redirect=True, hsts=300)
    adapter = apply(haproxy, site(one, hosts=(secured, Host("*.shop.test", redirect=True), Host("a.shop.test"))))
    assert adapter.reloads == 0
    location = located(haproxy, "shop.test", "/a?b=c")
    assert location == (308, f"https://shop.test:{haproxy.tls_port}/a?b=c")
    assert haproxy.get(f"{ACME_PATH}token") == (200, "one")
    assert haproxy.get(host="b.shop.test")[0] == 308
    assert haproxy.get(host="a.shop.test")[0] == 404, "a host of its own is not redirected by the wildcard"
    with connect(haproxy.tls_port, "shop.test") as client:
        status, headers, body = ask(client, "shop.test")
        assert (status, body, headers["strict-transport-security"]) == (200, b"one", "max-age=300")
        status, headers, _ = ask(client, "unknown.test")
        assert (status, "strict-transport-security" in headers) == (404, False)
    assert apply(haproxy, site(one, hosts=(Host("shop.test", own),))).reloads == 0
    assert haproxy.get()[0] == 200


def test_another_port_for_tls_may_be_what_clients_see(haproxy: Balancer, apps: Callable[..., App]) -> None:
    apply(haproxy, site(apps("one"), hosts=(Host("shop.test", redirect=True),)), https_port=443)
    assert located(haproxy, "shop.test", "/") == (308, "https://shop.test/")


def test_http_2_is_spoken_over_tls(haproxy: Balancer) -> None:
    apply(haproxy, site(hosts=(Host("shop.test", certificate("shop.test")),)))
    assert "alpn h2,http/1.1" in haproxy.config.read_text()
    with connect(haproxy.tls_port, "shop.test", "h2") as client:
        assert client.selected_alpn_protocol() == "h2"


def test_a_first_file_leaves_out_what_haproxy_does_not_start_with(haproxy: Balancer) -> None:
    haproxy.kill()
    good, other = certificate("good"), certificate("other")
    haproxy.config.unlink()
    bad = Host("bad.test", broken(good, other))
    asyncio.run(haproxy.adapter().prepare(site(hosts=(bad, Host("good.test", good)))))
    haproxy.start()
    assert served(haproxy.tls_port, "good.test") == der(good)
    assert served(haproxy.tls_port, "bad.test") is None


def test_the_last_certificate_goes_with_everything_else(haproxy: Balancer) -> None:
    apply(haproxy, site(hosts=(Host("shop.test", certificate("shop.test")),)))
    asyncio.run(haproxy.adapter().apply(Desired(), None, remove=False))
    assert served(haproxy.tls_port, "shop.test") is not None
    apply(haproxy, Desired())
    assert served(haproxy.tls_port, "shop.test") is None
    assert files(haproxy) == {}


def located(haproxy: Balancer, host: str, path: str) -> tuple[int, str | None]:
    """Return status and Location of a plain request."""
    with socket.create_connection(("127.0.0.1", haproxy.port), 10) as client:
        status, headers, _ = ask(client, host, path)
        return status, headers.get("location")
