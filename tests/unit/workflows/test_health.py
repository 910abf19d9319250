"""What probes come to: who is to blame, for how long a component is waited for, and what a person reads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from coupler.errors import ExitCode
from coupler.model import load_cluster
from coupler.model.health import components, components_of
from coupler.result import HostOutcome, State
from coupler.workflows import health
from coupler.workflows.report import Report, read_report
from coupler.workflows.script import Answer
from coupler.workflows.status import ClusterStatus
from coupler.workflows.steps.health import failed_units, lacks

VALID = Path(__file__).parents[2] / "fixtures/cluster/valid"
CLUSTER = load_cluster(VALID / "three-nodes.yaml").cluster
PARTS = components_of(CLUSTER, CLUSTER.nodes[0])
NOW = datetime(2026, 8, 1, tzinfo=UTC)


def report(node: str = "node-1", **said: str) -> Report:
    """Return the report of a node on which everything is well but what is said; underscores in names are dashes."""
    verdicts = {part.name: "ok" for part in PARTS} | {name.replace("_", "-"): text for name, text in said.items()}
    lines = ['status={"applied": "abc123"}', *(f"health={name} {verdict}" for name, verdict in verdicts.items())]
    return read_report(node, Answer("\n".join(lines)))


def status(*reports: Report, lost: tuple[str, ...] = ()) -> ClusterStatus:
    silent = {name: HostOutcome(name, State.UNREACHABLE, "it does not answer") for name in lost}
    return ClusterStatus(CLUSTER, "abc123", None, CLUSTER.nodes, {r.node: r for r in reports}, silent, NOW)


@pytest.mark.parametrize("name", sorted(path.name for path in VALID.glob("*.yaml")))
def test_components_name_what_there_is(name: str) -> None:
    """Each comes after those that it needs, which every node has that has it, or none."""
    cluster = load_cluster(VALID / name).cluster
    seen: set[str] = set()
    for component in components(cluster):
        assert component.name not in seen
        assert set(component.after) <= seen
        seen.add(component.name)
    assert {"etcd", "etcd-gateway"} <= seen


def test_lines_that_are_none_of_the_script_count_for_nothing() -> None:
    found = health.read_probes(
        ["etcd ok leader", "api bad not ready: etcd", "", "kubelet", "curl: (7) no", "dns waiting "]
    )
    assert {name: (str(probe.state), probe.reason) for name, probe in found.items()} == {
        "etcd": ("ok", "leader"),
        "api": ("bad", "not ready: etcd"),
        "dns": ("waiting", ""),
    }


def test_time_runs_for_what_nothing_else_holds_up() -> None:
    patience = health.Patience(PARTS)
    ill = report(etcd="bad no leader", api="bad not ready: etcd")
    assert patience.overdue(ill, 0) == []
    assert patience.overdue(ill, 119) == []
    assert [probe.component for probe in patience.overdue(ill, 121)] == ["etcd"]
    alone = report(api="bad not ready: poststarthook/x")
    assert patience.overdue(alone, 130) == [], "the API's time begins now"
    assert patience.overdue(alone, 309) == []
    assert [probe.component for probe in patience.overdue(alone, 311)] == ["api"]
    assert patience.overdue(report(), 312) == []
    assert patience.overdue(alone, 313) == [], "it was well in between"


def test_what_fails_a_node_is_vital() -> None:
    ill = report(dns="bad no pod of it is ready")
    assert health.bad(ill, vital=PARTS) == []
    assert [str(probe) for probe in health.bad(ill)] == ["dns: no pod of it is ready"]


def test_a_unit_of_a_component_is_judged_by_its_probe() -> None:
    units = "\n".join(
        f"unit=Id={name}\nunit=LoadState=loaded\nunit=ActiveState=activating\nunit=SubState=auto-restart\nunit="
        for name in ("kube-scheduler.service", "node-identity.service")
    )
    answer = read_report("node-1", Answer(f"health=scheduler bad the API\n{units}"))
    assert failed_units(answer, PARTS) == ["node-identity.service"]
    old = read_report("node-1", Answer(units))
    assert failed_units(old, PARTS) == ["kube-scheduler.service", "node-identity.service"], "there is no probe"


def test_a_node_without_the_script_is_judged_by_its_member() -> None:
    old = 'status={"applied": "abc123"}\netcd_health={"health": "false"}\n'
    assert lacks(read_report("node-1", Answer(old)), "abc123") == "its etcd member has no quorum yet"
    new = f"{old}health=etcd bad no leader: 1 of 3 members answer\n"
    assert lacks(read_report("node-1", Answer(new)), "abc123", PARTS) is None, "the probe says it"


def test_a_table_shows_each_component_over_all_nodes() -> None:
    found = status(
        report("node-1"),
        report("node-2", api="bad not ready: etcd", flannel="waiting flanneld: none"),
        lost=("node-3",),
    )
    lines = {line.split()[0]: line.split()[1:] for line in found.text().splitlines() if line.strip()}
    assert lines["COMPONENT"] == ["OK", "WAITING", "BAD", "UNKNOWN"]
    assert lines["api"] == ["1", "of", "3", "-", "node-2", "node-3"]
    assert lines["flannel"] == ["1", "of", "3", "node-2", "-", "node-3"]
    assert "bad: api on node-2: not ready: etcd" in found.text()
    assert found.exit_code is ExitCode.HOST_FAILED
    [api] = [entry for entry in found.data()["components"] if entry["component"] == "api"]
    assert api == {"component": "api", "ok": ["node-1"], "waiting": [], "bad": ["node-2"], "unknown": ["node-3"]}
    node = found.data()["nodes"][1]
    assert node["health"]["api"] == {"state": "bad", "reason": "not ready: etcd"}
    assert (node["state"], node["error"]) == ("trouble", "api: not ready: etcd")


def test_the_same_reason_is_said_once() -> None:
    needs = "waiting it needs kube-apiserver: the mirror does not have it"
    reports = [report(f"node-{n}", kubelet=needs, kube_proxy=needs) for n in range(1, 7)]
    assert health.remarks(reports) == [
        "waiting: kubelet, kube-proxy on node-1, node-2, node-3, node-4 and 2 more: "
        "it needs kube-apiserver: the mirror does not have it"
    ]


def test_what_lacks_its_own_program_is_told_with_its_unit() -> None:
    why = "the mirror does not have it"
    answer = read_report(
        "node-1", Answer(f"artifact=waiting kubelet 1.35.1 {why}\nhealth=kubelet waiting kubelet: {why}")
    )
    assert health.remarks([answer]) == []


def test_members_that_are_not_healthy_are_counted() -> None:
    def with_member(name: str, healthy: str) -> Report:
        lines = f'status={{"applied": "abc123"}}\netcd_health={{"health": "{healthy}"}}\nhealth=etcd-gateway ok'
        return read_report(name, Answer(lines))

    well = [with_member("node-1", "true"), with_member("node-2", "true")]
    assert "etcd: 2 of 3 members are healthy: the loss of one more stops it" in status(*well, lost=("node-3",)).text()
    assert "nothing can be written" in status(well[0], with_member("node-2", "false"), lost=("node-3",)).text()
    assert "members are healthy" not in status(*well, with_member("node-3", "true")).text()


def test_a_wrong_clock_comes_before_what_it_may_cause() -> None:
    lines = 'status={"applied": "abc123"}\nhealth=api bad it does not answer: certificate is not yet valid'
    found = status(read_report("node-1", Answer(lines), -7200.0), report("node-2"), report("node-3"))
    assert found.data()["nodes"][0]["error"].startswith("its clock is 7200 s behind ours; api: it does not answer")
    assert "node-1: its clock is 7200 s behind ours" in found.text()


def test_expired_certificates_are_named() -> None:
    answer = report()
    answer = Report(**vars(answer) | {"certificates": {"/etc/coupler/pki/etcd/client.crt": NOW - timedelta(days=1)}})
    found = status(answer, report("node-2"), report("node-3"))
    assert found.data()["nodes"][0]["error"] == "expired: /etc/coupler/pki/etcd/client.crt: run `cluster certs renew`"
