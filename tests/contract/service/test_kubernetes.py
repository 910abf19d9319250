"""Kubernetes to HAProxy by the service, through the API server's bad days, under a load of real requests."""

from __future__ import annotations

import shutil
import threading
from typing import TYPE_CHECKING, Any

import pytest
from tests.contract.certificates import certificate, get, shown
from tests.contract.service.world import Registrator
from tests.contract.traffic import App, Load, eventually
from tests.fakes.kube_api import V1_21
from tests.fakes.kube_objects import endpoint_slice, ingress, secret, service
from tests.fakes.kube_thread import KubeThread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.contract.haproxy.world import Balancer

pytestmark = pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")


@pytest.fixture(params=["1.32"])
def kube(request: pytest.FixtureRequest) -> Iterator[KubeThread]:
    """The stand-in API server."""
    server = KubeThread(V1_21) if request.param == "1.21" else KubeThread()
    yield server
    server.close()


@pytest.fixture
def registrator(tmp_path: Path, kube: KubeThread, haproxy: Balancer) -> Iterator[Registrator]:
    """A registrator between the API server and the HAProxy; it is not started yet."""
    balancer = {
        "socket": str(haproxy.socket),
        "config": str(haproxy.config),
        "base": [str(haproxy.base)],
        "http": [f"127.0.0.1:{haproxy.port}"],
        "https": [f"127.0.0.1:{haproxy.tls_port}"],
        "tcp-address": "127.0.0.1",
        "reload-interval": 0.1,
    }
    settings = {"sources": {"kubernetes": {"server": kube.url}}, "balancers": {"haproxy": balancer}}
    one = Registrator(tmp_path / "registrator", settings)
    yield one
    one.kill()


def slices(*apps: tuple[App, str]) -> list[dict[str, Any]]:
    """Return one slice for each instance: they all have the same address, and so need ports of their own."""
    return [
        endpoint_slice(f"shop-{app.app_name}", "shop", app.port, (app.app_name, "127.0.0.1", state))
        for app, state in apps
    ]


def site(kube: KubeThread, *apps: App) -> None:
    kube.put(service("shop", 80), ingress("shop", "shop.test", "shop"), *slices(*((app, "ready") for app in apps)))


def instances(registrator: Registrator) -> dict[str, str]:
    backend = registrator.state()["backends"].get("shop/shop:80", {"endpoints": []})
    return {endpoint["uid"]: endpoint["state"] for endpoint in backend["endpoints"]}


def test_a_rolling_update_loses_no_request(
    kube: KubeThread, haproxy: Balancer, registrator: Registrator, apps: Callable[..., App]
) -> None:
    old = [apps(f"old-{n}") for n in range(3)]
    site(kube, *old)
    registrator.start()
    with Load(haproxy.port) as load:
        for n, leaving in enumerate(old):
            fresh = apps(f"new-{n}")
            kube.put(*slices((fresh, "down")))
            kube.put(*slices((fresh, "ready")))
            eventually(lambda fresh=fresh: fresh.served > 0, "the new instance gets nothing")  # type: ignore[misc]
            kube.put(*slices((leaving, "terminating")))
            name = leaving.app_name
            eventually(lambda name=name: instances(registrator)[name] == "drain", "it does not drain")  # type: ignore[misc]
            eventually(registrator.ready, "it is never in step")
            before = leaving.served
            load.more(20)
            assert leaving.served == before, "an instance that terminates gets new requests"
            kube.delete("endpointslices", f"shop-{name}")
            eventually(lambda name=name: name not in instances(registrator), "it stays")  # type: ignore[misc]
            leaving.stop()
        load.more()
    assert load.failures == []


def test_the_server_is_away_and_comes_back_with_its_history_compacted(
    kube: KubeThread, haproxy: Balancer, registrator: Registrator, apps: Callable[..., App]
) -> None:
    one, two, three = apps("one"), apps("two"), apps("three")
    site(kube, one, two)
    registrator.start()
    with Load(haproxy.port) as load:
        kube.do(kube.api.down)
        eventually(lambda: registrator.state()["sources"][0]["problem"] is not None, "nobody notices")
        load.more()
        registrator.kill()
        registrator.start(ready=False)
        eventually(lambda: len(registrator.events("running")) == 2, "it does not start without the API server")
        load.more()
        kube.put(*slices((three, "ready")))
        kube.delete("endpointslices", "shop-one")
        kube.do(kube.api.compact)
        kube.do(kube.api.restart)
        kube.up()
        eventually(lambda: instances(registrator) == {"two": "ready", "three": "ready"}, "a change was missed")
        eventually(registrator.ready, "it is never in step")
        one.stop()
        load.more()
    assert load.failures == []


def test_the_address_of_a_pod_that_is_gone_may_be_another_ones(
    kube: KubeThread, haproxy: Balancer, registrator: Registrator, apps: Callable[..., App]
) -> None:
    one, two = apps("one"), apps("two")
    site(kube, one, two)
    kube.put(service("web", 80), ingress("web", "web.test", "web"))
    registrator.start()
    with Load(haproxy.port) as load:
        # whose address it was is deleted after the next ones have it, one of them in the same service
        kube.put(endpoint_slice("web-new", "web", one.port, ("web-new", "127.0.0.1", "ready")))
        kube.put(endpoint_slice("shop-new", "shop", one.port, ("shop-new", "127.0.0.1", "ready")))
        eventually(lambda: haproxy.get(host="web.test") == (200, "one"), "the next one gets nothing")
        kube.put(*slices((one, "terminating")))
        eventually(lambda: instances(registrator)["one"] == "drain", "it does not drain")
        eventually(registrator.ready, "two endpoints of one address are never in step")
        served = one.served
        load.more()
        assert one.served > served, "the one that goes takes the requests of the next one with it"
        kube.delete("endpointslices", "shop-one")
        eventually(lambda: instances(registrator) == {"two": "ready", "shop-new": "ready"}, "who left is still there")
        eventually(registrator.ready, "it is never in step")
        served = one.served
        load.more()
        assert one.served > served, "the late word took away the next one's address"
        assert haproxy.get(host="web.test") == (200, "one")
    assert load.failures == []


@pytest.mark.parametrize("kube", ["1.21"], indirect=True)
def test_a_relist_that_is_suddenly_empty_removes_nothing(
    kube: KubeThread, haproxy: Balancer, registrator: Registrator, apps: Callable[..., App]
) -> None:
    site(kube, apps("one"), apps("two"))
    registrator.start()
    with Load(haproxy.port) as load:
        kube.put(service("other", 80))
        kube.do(lambda: kube.api.empty_next_list("endpointslices"))
        kube.do(kube.api.compact)
        kube.do(kube.api.cut)
        eventually(lambda: bool(registrator.events("a relist is held back")), "it is not held back")
        eventually(lambda: registrator.state()["sources"][0]["held"] is None, "it is held for ever")
        assert len(instances(registrator)) == 2
        load.more()
    assert load.failures == []


def test_two_lists_that_agree_are_believed(
    kube: KubeThread, haproxy: Balancer, registrator: Registrator, apps: Callable[..., App]
) -> None:
    site(kube, apps("one"), apps("two"))
    registrator.start()
    kube.do(kube.api.down)
    for name in ("one", "two"):
        kube.delete("endpointslices", f"shop-{name}")
    kube.do(kube.api.compact)
    kube.do(kube.api.restart)
    kube.up()
    eventually(lambda: instances(registrator) == {}, "what is gone stays for ever")
    eventually(lambda: haproxy.answers() is not None and haproxy.get()[0] == 503, "it still gets requests")


def test_many_endpoints_churn_and_no_request_is_lost(
    kube: KubeThread, haproxy: Balancer, registrator: Registrator, apps: Callable[..., App]
) -> None:
    one = apps("one")
    site(kube, one)
    for n in range(40):
        name = f"web-{n}"
        kube.put(service(name, 80, annotations={"coupler.io/host": f"{name}.test"}))
    registrator.start()
    stop = threading.Event()

    def churn() -> None:
        turn = 0
        while not stop.is_set():
            for n in range(40):
                uids = [(f"web-{n}-{turn + k}", f"127.0.1.{(turn + k) % 250 + 1}", "ready") for k in range(25)]
                kube.put(endpoint_slice(f"web-{n}", f"web-{n}", 9, *uids))
            turn += 5

    thread = threading.Thread(target=churn)
    with Load(haproxy.port) as load:
        thread.start()
        eventually(lambda: registrator.state()["balancers"][0]["changes"] > 3000, "nothing is moved")
        load.more(200)
        stop.set()
        thread.join()
        eventually(registrator.ready, "it is never in step again")
        load.more()
    assert load.failures == []
    state = registrator.state()
    wanted = sum(len(backend["endpoints"]) for backend in state["backends"].values())
    assert wanted == 40 * 25 + 1
    assert sum(len(names) for backend, names in haproxy.servers().items() if backend.startswith("coupler-")) == wanted


def test_a_certificate_is_served_and_rotated_without_a_reload(
    kube: KubeThread, tmp_path: Path, registrator: Registrator, haproxy: Balancer, apps: Callable[..., App]
) -> None:
    first, second = certificate("shop.test"), certificate("shop.test")
    note = {"coupler.io/redirect-to-ssl": "true"}
    site(kube, apps("one"))
    kube.put(ingress("shop", "shop.test", "shop", tls="shop-tls", annotations=note), secret("shop-tls", first))
    registrator.start()
    eventually(lambda: shown(haproxy.tls_port, "shop.test") == first.chain, "the certificate is not served")
    assert get(haproxy.port, "shop.test", tls=False)[0] == 308
    pid = haproxy.pid()
    kube.put(secret("shop-tls", second))
    eventually(lambda: shown(haproxy.tls_port, "shop.test") == second.chain, "the new one is not served")
    bad = secret("shop-tls", first)
    bad["data"]["tls.key"] = secret("x", second)["data"]["tls.key"]
    kube.put(bad)
    eventually(lambda: bool(kube.objects("events", "/api/v1")), "no Event says that it is bad")
    assert shown(haproxy.tls_port, "shop.test") == second.chain
    assert haproxy.pid() == pid


def test_the_ancestors_flags_alone_are_refused_by_halves(registrator: Registrator, kube: KubeThread) -> None:
    refused = registrator.run("run", "--pods", kube.url)
    assert refused.returncode == 2
    assert "--pods and --etcd belong together" in refused.stderr
