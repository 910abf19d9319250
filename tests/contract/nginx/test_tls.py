"""Hosts over TLS, held to a real nginx."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.contract.certificates import certificate
from tests.contract.nginx.test_balancer import apply, endpoint
from tests.contract.nginx.world import PatientLoad

from coupler.registrator.merge import merge
from coupler.registrator.model import ACME_PATH, Backend, Certificate, Desired, Host, Offer, Route

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.contract.nginx.world import Balancer
    from tests.contract.traffic import App

pytestmark = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")

HOSTS = ("shop.test", "*.shop.test", "a.shop.test", "plain.test", "")


def world(apps: Callable[..., App], *hosts: Host) -> Desired:
    """One backend for each host of a route, named after it."""
    backends = tuple(Backend(host or "any", (endpoint(apps(host or "any")),)) for host in HOSTS)
    routes = tuple(Route(host or "any", host or "any", host) for host in HOSTS)
    return merge([("t", Offer(backends, routes, hosts=hosts))])


def refuses(nginx: Balancer, name: str) -> bool:
    try:
        nginx.ask_tls("shop.test", name=name)
    except ssl.SSLError as error:
        return "UNRECOGNIZED_NAME" in str(error)
    return False


def test_each_host_has_its_certificate_and_names_without_one_are_refused(
    nginx: Balancer, apps: Callable[..., App]
) -> None:
    shop, under = certificate("shop.test"), certificate("*.shop.test")
    apply(nginx, world(apps, Host("shop.test", shop), Host("*.shop.test", under), Host("plain.test")))
    seen = {host: nginx.ask_tls(host) for host in ("shop.test", "a.shop.test", "b.shop.test")}
    assert {host: (answer.body, names) for host, (answer, names) in seen.items()} == {
        "shop.test": ("shop.test", ["shop.test"]),
        "a.shop.test": ("a.shop.test", ["*.shop.test"]),
        "b.shop.test": ("*.shop.test", ["*.shop.test"]),
    }
    assert [name for name in ("plain.test", "a.b.shop.test", "other.test", "") if not refuses(nginx, name)] == []
    assert nginx.ask_tls("plain.test", name="shop.test")[0].status == 421
    assert nginx.ask(host="plain.test").body == "plain.test"
    folder = nginx.settings().certificates
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_the_default_certificate_is_for_all_other_names(nginx: Balancer, apps: Callable[..., App]) -> None:
    default, shop = certificate("default.test"), certificate("shop.test")
    apply(nginx, world(apps, Host("", default), Host("shop.test", shop)))
    assert nginx.ask_tls("shop.test")[1] == ["shop.test"]
    for name in ("other.test", ""):
        answer, names = nginx.ask_tls("other.test", name=name)
        assert (answer.body, names) == ("any", ["default.test"])
    assert nginx.ask_tls("plain.test")[0].body == "plain.test"


def test_plain_requests_are_sent_to_tls_but_for_those_of_an_authority(
    nginx: Balancer, apps: Callable[..., App]
) -> None:
    shop = Host("shop.test", certificate("shop.test"), redirect=True, hsts=600)
    apply(nginx, world(apps, shop, Host("plain.test", redirect=True, hsts=5), Host("", hsts=7)))
    answer = nginx.ask("/a%20b?c", "Shop.test:8080")
    assert (answer.status, answer.headers["location"]) == (308, f"https://shop.test:{nginx.tls_port}/a%20b?c")
    assert "strict-transport-security" not in answer.headers
    assert nginx.ask(f"{ACME_PATH}token").body == "shop.test"
    assert nginx.ask(f"/x{ACME_PATH}token").status == 308
    assert nginx.ask(host="plain.test").status == 200
    assert nginx.ask(host="elsewhere.test").status == 200
    answer, _ = nginx.ask_tls("shop.test", "/x")
    assert answer.headers["strict-transport-security"] == "max-age=600"


def test_a_certificate_is_renewed_under_load_and_the_old_one_goes(nginx: Balancer, apps: Callable[..., App]) -> None:
    desired = world(apps, Host("shop.test", certificate("shop.test", "old.test")))
    apply(nginx, desired)
    with PatientLoad(nginx.port) as load:
        apply(
            nginx,
            merge(
                [
                    (
                        "t",
                        Offer(
                            tuple(desired.backends.values()),
                            desired.routes,
                            hosts=(Host("shop.test", certificate("shop.test", "new.test")),),
                        ),
                    )
                ]
            ),
        )
        assert nginx.ask_tls("shop.test")[1] == ["shop.test", "new.test"]
        load.more()
    assert load.failures == []
    assert len(list(nginx.settings().certificates.iterdir())) == 1


def test_a_certificate_that_nginx_refuses_harms_its_host_alone(nginx: Balancer, apps: Callable[..., App]) -> None:
    bad = certificate("bad.test")
    object.__setattr__(bad, "key", certificate("other.test").key)  # what the model does not let through
    default = certificate("default.test")
    object.__setattr__(default, "chain", "no certificate")
    hosts = (Host("shop.test", certificate("shop.test")), Host("plain.test", bad, redirect=True), Host("", default))
    desired = world(apps, *hosts)
    adapter = nginx.adapter()
    done = asyncio.run(adapter.apply(desired, None, remove=True))
    assert done.failed.keys() == {"host plain.test", "host (any)"}
    assert nginx.ask_tls("shop.test")[0].body == "shop.test"
    assert refuses(nginx, "plain.test")
    assert nginx.ask(host="plain.test").body == "plain.test"
    assert asyncio.run(adapter.drift(desired)) == frozenset()
    mended = (hosts[0], Host("plain.test", certificate("plain.test")))
    offer = Offer(tuple(desired.backends.values()), desired.routes, hosts=mended)
    assert asyncio.run(adapter.apply(merge([("t", offer)]), frozenset(("plain.test",)), remove=True)).failed == {}
    assert nginx.ask_tls("plain.test")[0].body == "plain.test"


def test_a_key_is_never_shown(nginx: Balancer, apps: Callable[..., App]) -> None:
    own: Certificate = certificate("shop.test")
    lines = asyncio.run(nginx.adapter().plan(world(apps, Host("shop.test", own))))
    assert any(line.startswith("write ") and line.endswith(".pem") for line in lines)
    assert not any(part in line for line in lines for part in own.key.splitlines()[1:])


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_clients_may_speak_http_2(nginx: Balancer, apps: Callable[..., App]) -> None:
    apply(nginx, world(apps, Host("shop.test", certificate("shop.test"))))
    url = f"https://shop.test:{nginx.tls_port}/x"
    argv = [
        "curl",
        "-sk",
        "--http2",
        "--resolve",
        f"shop.test:{nginx.tls_port}:127.0.0.1",
        "-w",
        " %{http_version}",
        url,
    ]
    assert subprocess.run(argv, check=True, capture_output=True, text=True).stdout == "shop.test 2"
