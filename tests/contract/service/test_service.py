"""The service as its users have it: between a real etcd and a real HAProxy, under a load of real requests."""

from __future__ import annotations

import random
import shutil
import signal
import socket
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.contract.traffic import App, Load, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.contract.etcd import Etcd
    from tests.contract.haproxy.world import Balancer
    from tests.contract.service.world import Registrator

pytestmark = pytest.mark.skipif(
    not (shutil.which("haproxy") and shutil.which("etcd")), reason="haproxy or etcd is not installed"
)


BEHIND = "a source is behind; what it said last still counts"


def announce(etcd: Etcd, *apps: App) -> None:
    etcd.put("/services/shop/.service", '{"host": "shop.test"}')
    for app in apps:
        etcd.put(f"/services/shop/{app.app_name}", f"127.0.0.1:{app.port}")


def test_what_is_announced_is_routed_and_what_leaves_is_not(
    etcd: Etcd, haproxy: Balancer, registrator: Registrator, apps: Callable[..., App]
) -> None:
    one, two = apps("one"), apps("two")
    announce(etcd, one)
    registrator.start()
    assert haproxy.get() == (200, "one")
    with Load(haproxy.port) as load:
        announce(etcd, two)
        eventually(lambda: two.served > 0, "the second instance gets nothing")
        etcd.ctl("del", "/services/shop/one")
        eventually(lambda: len(registrator.state()["backends"]["shop"]["endpoints"]) == 1, "who left is still there")
        eventually(registrator.ready, "it is never in step again")
        one.stop()
        load.more()
    assert load.failures == []


def test_state_explain_metrics_and_drain(
    etcd: Etcd, haproxy: Balancer, registrator: Registrator, apps: Callable[..., App]
) -> None:
    one, two = apps("one"), apps("two")
    announce(etcd, one, two)
    registrator.start()
    at = f"127.0.0.1:{registrator.port}"
    explained = registrator.run("explain", "shop.test", "/cart", "--at", at)
    assert explained.returncode == 0, explained.stderr
    assert f"127.0.0.1:{one.port} ready weight 100 (/services/shop/one)" in explained.stdout
    assert registrator.run("explain", "other.test", "--at", at).returncode == 1
    state = registrator.state()
    assert [route["host"] for route in state["routes"]] == ["shop.test"]
    assert state["ready"]
    assert registrator.get("/healthz") == (200, "ok\n")
    metrics = registrator.get("/metrics")[1]
    assert 'coupler_registrator_balancer_in_step{balancer="haproxy"} 1.0' in metrics
    assert "coupler_registrator_backends 1.0" in metrics
    assert stat.S_IMODE(registrator.control.stat().st_mode) == 0o600
    with Load(haproxy.port) as load:
        drained = registrator.run("drain", f"127.0.0.1:{two.port}", "--at", str(registrator.control))
        assert drained.stdout == f"draining: 127.0.0.1:{two.port}\n"
        eventually(registrator.ready, "it is never in step again")
        load.more(10)
        before = two.served
        load.more()
        assert two.served == before
        registrator.kill()
        registrator.start()
        load.more()
        assert two.served == before, "the drain is forgotten"
        registrator.run("undrain", f"127.0.0.1:{two.port}", "--at", str(registrator.control))
        eventually(lambda: two.served > before, "it does not come back")
    assert load.failures == []
    refused = registrator.run("drain", "x", "--at", str(registrator.folder / "nowhere.sock"))
    assert refused.returncode == 4
    assert "no registrator answers" in refused.stderr


def test_a_registrator_killed_at_random_moments_of_a_churn_loses_no_request(
    etcd: Etcd, haproxy: Balancer, registrator: Registrator, apps: Callable[..., App]
) -> None:
    chance = random.Random(7)
    started = [apps(f"app-{n}") for n in range(4)]
    announce(etcd, *started)
    registrator.start()
    with Load(haproxy.port) as load:
        for _ in range(5):
            for _ in range(3):
                app = chance.choice(started[1:])
                if chance.random() < 0.5:
                    etcd.ctl("del", f"/services/shop/{app.app_name}")
                else:
                    announce(etcd, app)
            time.sleep(chance.random() / 10)
            registrator.kill()
            load.more(20)
            registrator.start(ready=False)
            time.sleep(chance.random() / 2)
        announce(etcd, *started)
        eventually(registrator.ready, "it is never ready again")
        eventually(lambda: len(haproxy.servers()[shop(haproxy)]) == 4, "an instance is missing")
        load.more()
    assert load.failures == []


def shop(haproxy: Balancer) -> str:
    """Return the one backend of ours that has the shop's servers."""
    [name] = [name for name in haproxy.servers() if name.startswith("coupler-shop:")]
    return name


def test_while_etcd_is_away_routes_stay_and_afterwards_nothing_was_missed(
    etcd: Etcd, haproxy: Balancer, registrator: Registrator, apps: Callable[..., App]
) -> None:
    one, two = apps("one"), apps("two")
    announce(etcd, one)
    registrator.start()
    with Load(haproxy.port) as load:
        etcd.stop()
        eventually(lambda: registrator.state()["sources"][0]["problem"] is not None, "nobody notices")
        load.more()
        assert registrator.get("/readyz")[0] == 200, "what is wanted is in place"
        eventually(lambda: bool(registrator.events(BEHIND)), "nobody is told")
        registrator.kill()
        registrator.start(ready=False)
        eventually(lambda: len(registrator.events("running")) == 2, "it does not start without etcd")
        load.more()
        assert registrator.get("/readyz") == (503, "announcements has not synced\nhaproxy is not in step\n")
        etcd.start()
        announce(etcd, two)
        eventually(lambda: two.served > 0, "what was announced afterwards gets nothing")
    assert load.failures == []


def test_a_list_that_is_suddenly_empty_removes_nothing_until_it_is_confirmed(
    etcd: Etcd, haproxy: Balancer, registrator: Registrator, apps: Callable[..., App]
) -> None:
    one = apps("one")
    announce(etcd, one)
    registrator.start()
    with Load(haproxy.port) as load:
        etcd.stop()
        eventually(lambda: registrator.state()["sources"][0]["problem"] is not None, "nobody notices")
        shutil.rmtree(etcd.folder / "data")
        etcd.start()
        eventually(lambda: bool(registrator.events("a relist is held back")), "it is not held back")
        announce(etcd, one)
        eventually(lambda: registrator.state()["sources"][0]["held"] is None, "it is held for ever")
        load.more()
    assert load.failures == []


def test_a_balancer_that_starts_anew_is_brought_into_step(
    etcd: Etcd, haproxy: Balancer, registrator: Registrator, apps: Callable[..., App]
) -> None:
    one, two = apps("one"), apps("two")
    announce(etcd, one)
    registrator.start()
    haproxy.kill()
    announce(etcd, two)
    eventually(lambda: not registrator.ready(), "nobody notices that it is gone")
    haproxy.start()
    eventually(registrator.ready, "it is never in step again")
    eventually(lambda: {haproxy.answers() for _ in range(6)} == {(200, "one"), (200, "two")}, "not all is routed")


def test_a_stop_leaves_every_route_in_place_and_tells_the_manager(
    etcd: Etcd, haproxy: Balancer, registrator: Registrator, apps: Callable[..., App], tmp_path: Path
) -> None:
    announce(etcd, apps("one"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, Load(haproxy.foreign_port):
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(15)
        registrator.environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "100000"}
        registrator.start()
        told = {manager.recv(100) for _ in range(3)}
        assert told == {b"READY=1", b"WATCHDOG=1"}
        assert registrator.stop() == 0
        manager.settimeout(0.0)
        rest = []
        while not rest or rest[-1] != b"STOPPING=1":
            rest.append(manager.recv(100))
    assert haproxy.get() == (200, "one")
    assert registrator.events("stopped; what is routed stays routed")
    haproxy.kill()
    haproxy.start()
    assert haproxy.get() == (200, "one"), "its files do not know what was routed"


def test_two_registrators_at_once_agree(
    etcd: Etcd, haproxy: Balancer, make: Callable[[str], Registrator], apps: Callable[..., App]
) -> None:
    one, two = apps("one"), apps("two")
    announce(etcd, one)
    first, second = make("first"), make("second")
    first.start()
    second.start()
    with Load(haproxy.port) as load:
        for _ in range(3):
            announce(etcd, two)
            load.more(20)
            etcd.ctl("del", "/services/shop/two")
            load.more(20)
        announce(etcd, two)
        eventually(lambda: first.ready() and second.ready(), "they are never in step")
        changes = [each.state()["balancers"][0]["changes"] for each in (first, second)]
        load.more(200)
        assert [each.state()["balancers"][0]["changes"] for each in (first, second)] == changes, "they quarrel"
    assert load.failures == []
    assert len(haproxy.servers()[shop(haproxy)]) == 2


def test_a_dry_run_prints_what_would_be_done_and_does_nothing(
    etcd: Etcd, haproxy: Balancer, registrator: Registrator, apps: Callable[..., App]
) -> None:
    one = apps("one")
    announce(etcd, one)
    registrator.folder.mkdir()
    registrator.write()
    before = haproxy.ask("show stat -1 7 -1").count("\n"), haproxy.config.read_text()
    planned = registrator.run("run", "--config", str(registrator.config), "--dry-run")
    assert planned.returncode == 1, planned.stderr
    assert "reload for backend coupler-shop:" in planned.stdout
    assert "server coupler-services-shop-one-" in planned.stdout
    assert (haproxy.ask("show stat -1 7 -1").count("\n"), haproxy.config.read_text()) == before
    registrator.start()
    assert (
        registrator.run("run", "--config", str(registrator.config), "--dry-run").stdout == "haproxy:\n  nothing to do\n"
    )


def test_a_dry_run_without_an_answer_says_which_source_is_silent(etcd: Etcd, registrator: Registrator) -> None:
    etcd.stop()
    registrator.folder.mkdir()
    registrator.write()
    planned = registrator.run("run", "--config", str(registrator.config), "--dry-run", "--wait", "1")
    assert planned.returncode == 1
    assert "announcements: etcd" in planned.stderr


def test_an_address_that_is_taken_ends_it_with_a_reason(registrator: Registrator, apps: Callable[..., App]) -> None:
    registrator.port = apps("other").port
    registrator.start(ready=False)
    assert registrator.process is not None
    assert registrator.process.wait(15) == 1
    assert f"cannot listen on 127.0.0.1:{registrator.port}" in registrator.log.read_text()


@pytest.mark.parametrize(
    ("kubernetes", "says"), [({}, "no API server to be found"), ({"kubeconfig": "none"}, "none cannot be read")]
)
def test_a_way_to_kubernetes_that_is_none_is_named_before_anything_is_done(
    registrator: Registrator, kubernetes: dict[str, str], says: str
) -> None:
    registrator.settings["sources"] = {"kubernetes": kubernetes}
    registrator.folder.mkdir()
    registrator.write()
    ended = registrator.run("run", "--config", str(registrator.config))
    assert ended.returncode == 3
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_folder_that_is_not_there_ends_it_with_a_reason(registrator: Registrator) -> None:
    registrator.settings["balancers"]["haproxy"]["config"] = str(registrator.folder / "nowhere" / "coupler.cfg")
    registrator.folder.mkdir()
    registrator.write()
    ended = registrator.run("run", "--config", str(registrator.config))
    assert ended.returncode == 1
    assert "does its folder exist" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_hand_made_reload_costs_no_request_and_is_looked_through(
    etcd: Etcd, haproxy: Balancer, registrator: Registrator, apps: Callable[..., App]
) -> None:
    one, two = apps("one"), apps("two")
    announce(etcd, one)
    registrator.start()
    with Load(haproxy.port) as load:
        announce(etcd, two)
        eventually(lambda: two.served > 0, "the second instance gets nothing")
        pid = haproxy.pid()
        haproxy.succeed()
        eventually(lambda: haproxy.pid() not in {None, pid}, "HAProxy does not reload")
        served = two.served
        eventually(lambda: two.served > served, "what the runtime API was told is lost")
        eventually(registrator.ready, "it is never in step again")
        load.more()
    assert load.failures == []


def test_a_clock_that_jumps_changes_nothing(
    etcd: Etcd, haproxy: Balancer, registrator: Registrator, apps: Callable[..., App], tmp_path: Path
) -> None:
    library = next(iter(sorted(_libraries())), None)
    if library is None:
        pytest.skip("libfaketime is not installed")
    offset = tmp_path / "offset"
    offset.write_text("+0")
    registrator.environment = {
        "LD_PRELOAD": library,
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    one, two = apps("one"), apps("two")
    announce(etcd, one)
    registrator.start()
    with Load(haproxy.port) as load:
        for jump in ("+30d", "-30d"):
            offset.write_text(jump)
            announce(etcd, two)
            served = two.served
            eventually(lambda served=served: two.served > served, "after the jump nothing is moved")  # type: ignore[misc]
            etcd.ctl("del", "/services/shop/two")
            eventually(registrator.ready, "it is never in step again")
        load.more()
    assert load.failures == []


def _libraries() -> list[str]:
    return [str(path) for path in Path("/usr/lib").glob("*/faketime/libfaketime.so.1")]


def test_a_signal_during_the_first_sync_ends_it_cleanly(etcd: Etcd, registrator: Registrator) -> None:
    etcd.stop()
    registrator.start(ready=False)
    eventually(lambda: bool(registrator.log.exists() and registrator.events("running")), "it does not start")
    assert registrator.process is not None
    registrator.process.send_signal(signal.SIGINT)
    assert registrator.process.wait(15) == 0
