"""Kubernetes on five machines, three of them control nodes, with stand-ins for its programs: units, order, bad days.

The stand-ins (tests/standins) take the options that the real programs have, read the files that these name, keep the
cluster's objects in the real etcd, and run no pods. flanneld, fleetd and kubectl have no stand-in: pods' networks are
routed statically, and fleet and the addons wait for their programs.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from platformdirs import user_cache_path
from tests.standins.build import standins

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Answer, Site

pytestmark = pytest.mark.lab

VERSION = "1.36.4"
CONTROL, WORKERS = ("node-1", "node-2", "node-3"), ("node-4", "node-5")
PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
EVERYWHERE = ("kube-apiserver-gateway", "kubelet", "kube-proxy", "containerd")
PKI = "/etc/coupler/pki/kubernetes"
ASK = f"curl -sS --max-time 5 --cacert {PKI}/ca.crt --cert {PKI}/kubelet.crt --key {PKI}/kubelet.key"


@pytest.fixture(scope="module")
def begun(make_lab: Callable[[], Any], tmp_path_factory: pytest.TempPathFactory, make_site: Any) -> tuple[Site, Answer]:
    """A cluster that `cluster init` made of five machines and a mirror with the stand-ins."""
    mirror = tmp_path_factory.mktemp("mirror")
    for place, program in standins(user_cache_path("coupler") / "lab", VERSION).items():
        target = mirror / place
        target.parent.mkdir(parents=True)
        target.write_bytes(program)
    site: Site = make_site(5, "--mirror", str(mirror))
    site.edit("  interval: 1h\n", "  interval: 1h\n  health_timeout: 45s\n")
    return site, site.cluster("init")


@pytest.fixture(scope="module")
def site(begun: tuple[Site, Answer]) -> Site:
    answer = begun[1]
    assert answer.exit_code == 0, answer.stdout + answer.stderr
    return begun[0]


def eventually(what: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, what
        time.sleep(1)


def state(site: Site, machine: str, *units: str) -> list[str]:
    """Return how each unit is."""
    return site.inside(machine, f"systemctl is-active {' '.join(units)} || true").split()


def since(site: Site, machine: str, unit: str) -> int:
    """Return when a unit became active, in microseconds since the machine's start."""
    show = f"systemctl show --value -p ActiveEnterTimestampMonotonic {unit}"
    return int(site.inside(machine, show))


def ready(site: Site, machine: str) -> dict[str, bool]:
    """Return each node's name and whether its kubelet said within seconds that it is Ready, as seen from a machine."""
    nodes = json.loads(site.inside(machine, f"{ASK} https://127.0.0.1:6443/api/v1/nodes"))["items"]
    fresh = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() - 15))
    conditions = {node["metadata"]["name"]: node["status"]["conditions"][0] for node in nodes}
    return {name: c["status"] == "True" and c["lastHeartbeatTime"] > fresh for name, c in conditions.items()}


def test_every_unit_runs_where_it_should(site: Site) -> None:
    for machine in CONTROL:
        assert state(site, machine, *PLANE, *EVERYWHERE) == ["active"] * 7
    for machine in WORKERS:
        assert state(site, machine, *PLANE) == ["inactive"] * 3
        assert state(site, machine, *EVERYWHERE) == ["active"] * 4
    assert ready(site, "node-4") == dict.fromkeys((*CONTROL, *WORKERS), True)


def test_units_start_after_what_they_need(site: Site) -> None:
    for machine in CONTROL:
        assert since(site, machine, "etcd") < since(site, machine, "kube-apiserver")
        for unit in PLANE[1:]:
            assert since(site, machine, "kube-apiserver") < since(site, machine, unit)
        wanted = site.inside(machine, "systemctl list-dependencies --plain coupler.target")
        assert {f"{unit}.service" for unit in (*PLANE, "kubelet", "kube-proxy")} <= set(wanted.split())


def test_one_controller_manager_and_one_scheduler_lead(site: Site) -> None:
    for name in PLANE[1:]:
        path = f"https://127.0.0.1:6443/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{name}"
        seen = {json.loads(site.inside(machine, f"{ASK} {path}"))["spec"]["holderIdentity"] for machine in CONTROL}
        assert len(seen) == 1
        assert seen.pop().partition("_")[0] in CONTROL


def test_what_is_killed_comes_back(site: Site) -> None:
    units = (*PLANE, "kubelet", "kube-proxy", "kube-apiserver-gateway")
    kill = "; ".join(f"systemctl kill --signal=KILL --kill-who=main {unit}" for unit in units)
    before = {unit: since(site, "node-2", unit) for unit in units}
    site.inside("node-2", kill)
    eventually(lambda: all(since(site, "node-2", unit) > before[unit] for unit in units))
    eventually(lambda: state(site, "node-2", *units) == ["active"] * len(units))


def test_kubelets_go_on_through_another_api_server(site: Site) -> None:
    site.inside("node-1", "systemctl stop kube-apiserver")
    time.sleep(15)
    try:
        assert ready(site, "node-1") == dict.fromkeys((*CONTROL, *WORKERS), True)
        told = site.json("status")
        assert told.exit_code != 0
    finally:
        site.inside("node-1", "systemctl start kube-apiserver")


def test_a_changed_option_restarts_its_component_alone(site: Site) -> None:
    units = (*PLANE, "kubelet", "kube-proxy", "etcd")
    before = {unit: since(site, "node-3", unit) for unit in units}
    site.edit(f'  version: "{VERSION}"\n', f'  version: "{VERSION}"\n  scheduler: {{extra_args: {{v: 3}}}}\n')
    answer = site.cluster("init")
    assert answer.exit_code == 0, answer.stdout + answer.stderr
    after = {unit: since(site, "node-3", unit) for unit in units}
    assert [unit for unit in units if before[unit] != after[unit]] == ["kube-scheduler"]


def test_an_option_that_the_program_does_not_know_stops_the_run_and_the_nodes_go_back(site: Site) -> None:
    good = site.published
    text = site.file.read_text()
    site.edit("{v: 3}", "{v: 3, no-such-option: 1}")
    answer = site.cluster("init")
    site.file.write_text(text)
    assert answer.exit_code != 0
    assert site.inside("node-1", "basename $(readlink /var/lib/coupler/last-good.yaml) .yaml") == good
    eventually(lambda: state(site, "node-1", "kube-scheduler") == ["active"])


def test_versions_that_do_not_go_together_are_refused(site: Site) -> None:
    text = site.file.read_text()
    site.edit(f'  version: "{VERSION}"\n', f'  version: "{VERSION}"\n  kubelet: {{version: 1.32.0}}\n')
    answer = site.cluster("check")
    site.file.write_text(text)
    assert answer.exit_code == 3
    assert "1.32.0" in answer.stderr


def test_a_machine_that_lost_its_power_is_a_control_node_again(site: Site) -> None:
    for verb in ("kill", "start"):
        done = site.cluster("lab", verb, "node-3")
        assert done.exit_code == 0, done.stderr
    eventually(lambda: state(site, "node-3", *PLANE, "kubelet") == ["active"] * 4, 120)
    eventually(lambda: all(ready(site, "node-3").values()), 60)
