"""One registrator moves HAProxy and nginx at once, and neither waits for the other."""

from __future__ import annotations

import os
import shutil
import signal
from typing import TYPE_CHECKING

import pytest
from tests.contract.nginx.world import Balancer as Nginx
from tests.contract.nginx.world import PatientLoad
from tests.contract.traffic import App, Load, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.contract.etcd import Etcd
    from tests.contract.haproxy.world import Balancer as HAProxy
    from tests.contract.service.world import Registrator

pytestmark = pytest.mark.skipif(
    not all(shutil.which(program) for program in ("haproxy", "nginx", "etcd")), reason="a program is not installed"
)


@pytest.fixture
def nginx(tmp_path: Path, apps: Callable[..., App]) -> Iterator[Nginx]:
    """An nginx beside the HAProxy."""
    folder = tmp_path / "nginx"
    folder.mkdir()
    balancer = Nginx(folder, (apps("theirs-2"), apps("theirs-3")))
    with balancer.running():
        yield balancer


@pytest.fixture
def registrator(make: Callable[[str], Registrator], nginx: Nginx) -> Registrator:
    """A registrator of both balancers; it is not started yet."""
    one, places = make("registrator"), nginx.settings()
    one.settings["balancers"]["nginx"] = {
        "folder": str(places.folder),
        "main": str(places.main),
        "pid-file": str(places.pid_file),
        "http": list(places.http_binds),
        "tcp-address": "127.0.0.1",
        "status": places.status,
    }
    return one


def announce(etcd: Etcd, *apps: App) -> None:
    etcd.put("/services/shop/.service", '{"host": "shop.test"}')
    for app in apps:
        etcd.put(f"/services/shop/{app.app_name}", f"127.0.0.1:{app.port}")


def test_both_follow_and_neither_loses_a_request(
    etcd: Etcd, haproxy: HAProxy, nginx: Nginx, registrator: Registrator, apps: Callable[..., App]
) -> None:
    one, two = apps("one"), apps("two")
    announce(etcd, one)
    registrator.start()
    with Load(haproxy.port) as first, PatientLoad(nginx.port) as second:
        announce(etcd, two)
        for load, name in ((first, "HAProxy"), (second, "nginx")):
            eventually(lambda load=load: "two" in load.answers, f"{name} does not follow")  # type: ignore[misc]
        etcd.ctl("del", "/services/shop/one")
        eventually(lambda: len(registrator.state()["backends"]["shop"]["endpoints"]) == 1, "who left is still there")
        eventually(registrator.ready, "they are never in step again")
        one.stop()
        first.more()
        second.more()
    assert first.failures == []
    assert second.failures == []


def test_without_nginx_haproxy_is_moved_and_nginx_follows_when_it_is_back(
    etcd: Etcd, haproxy: HAProxy, nginx: Nginx, registrator: Registrator, apps: Callable[..., App]
) -> None:
    announce(etcd, apps("one"))
    registrator.start()
    with Load(haproxy.port) as load:
        nginx.stop()
        announce(etcd, apps("two"))
        eventually(lambda: "two" in load.answers, "HAProxy waits for nginx")
        eventually(lambda: registrator.get("/readyz") == (503, "nginx is not in step\n"), "it is not nginx alone")
        nginx.start()
        eventually(lambda: nginx.ask().body == "two", "nginx does not follow")
        eventually(registrator.ready, "they are never in step again")
    assert load.failures == []


@pytest.mark.parametrize("how", ["killed", "hung"])
def test_without_haproxy_nginx_is_moved_and_haproxy_follows_when_it_is_back(
    how: str, etcd: Etcd, haproxy: HAProxy, nginx: Nginx, registrator: Registrator, apps: Callable[..., App]
) -> None:
    announce(etcd, apps("one"))
    registrator.start()
    hung = haproxy.pids()
    with PatientLoad(nginx.port) as load:
        if how == "killed":
            haproxy.kill()
        else:
            for pid in hung:
                os.kill(pid, signal.SIGSTOP)
        announce(etcd, apps("two"))
        eventually(lambda: "two" in load.answers, "nginx waits for HAProxy")
        eventually(lambda: registrator.get("/readyz") == (503, "haproxy is not in step\n"), "it is not haproxy alone")
        if how == "killed":
            haproxy.start()
        else:
            for pid in hung:
                os.kill(pid, signal.SIGCONT)
        eventually(lambda: haproxy.get() == (200, "two"), "HAProxy does not follow")
        eventually(registrator.ready, "they are never in step again")
    assert load.failures == []
