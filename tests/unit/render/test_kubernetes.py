"""What the Kubernetes components are given, version by version, and the page that tells it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coupler.model import Cluster, load_cluster
from coupler.model.releases import CHANGES, EVERY, FIELDS, GATES_UNTIL, NEWEST, OLDEST, Change, changes_of
from coupler.model.rules.kubernetes import SECTIONS
from coupler.render.kubernetes import audit_policy, derivations, files, kubelet_configuration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGE = (Path(__file__).parents[3] / "docs" / "kubernetes.md").read_text()
MINORS = range(OLDEST, NEWEST + 1)
LATER = range(OLDEST, NEWEST + 10)
"""Beyond the newest: what Coupler would give a version that is not out yet."""


@pytest.fixture
def cluster_of(tmp_path: Path) -> Callable[[str], Cluster]:
    def load(kubernetes: str) -> Cluster:
        (tmp_path / "cluster.yaml").write_text(
            "version: 1\nname: demo\ngit: {repository: 'git://10.0.0.5/demo.git'}\n"
            f"kubernetes: {kubernetes}\n"
            "nodes: [{name: node-1, address: 10.0.0.11, roles: [control, worker]}]\n"
        )
        return load_cluster(tmp_path / "cluster.yaml").cluster

    return load


def words(cluster: Cluster, program: str) -> dict[str, str]:
    """Return the options of a program: name → value."""
    section = "api_server" if program == "kube-apiserver" else SECTIONS[program]
    options = [shlex.split(word)[0] for word in derivations(cluster)[section]()]
    return dict(option.removeprefix("--").split("=", 1) for option in options)


def options(cluster: Cluster, program: str) -> set[str]:
    """Return the names of all options, and of the fields of its file, that a program is given."""
    names = {f"--{name}" for name in words(cluster, program)}
    return names | set(kubelet_configuration(cluster)) if program == "kubelet" else names


@pytest.mark.parametrize("minor", MINORS)
def test_a_program_is_given_only_what_its_version_takes(cluster_of: Callable[[str], Cluster], minor: int) -> None:
    cluster = cluster_of(f"{{version: 1.{minor}.0}}")
    for program in SECTIONS:
        given = options(cluster, program)
        assert [name for name in given for change in changes_of(program, name) if not change.takes(minor)] == []
    assert set(kubelet_configuration(cluster)) <= FIELDS | {"apiVersion", "kind"}


def test_a_kubelet_is_told_where_containerd_is_in_one_way(cluster_of: Callable[[str], Cluster]) -> None:
    for minor in LATER:
        given = options(cluster_of(f"{{version: 1.{minor}.0}}"), "kubelet")
        assert len(given & {"--container-runtime-endpoint", "containerRuntimeEndpoint"}) == 1
        assert ("--container-runtime" in given) == (minor < 24)


def test_pinned_programs_are_given_what_their_own_version_takes(cluster_of: Callable[[str], Cluster]) -> None:
    cluster = cluster_of("{version: 1.28.2, kubelet: {version: 1.26.4}, proxy: {version: 1.25.0}}")
    assert "--container-runtime-endpoint" in options(cluster, "kubelet")
    assert cluster.version_of("kubelet") == "1.26.4"
    assert {a.name: a.version for a in cluster.artifacts_needed}["kube-proxy"] == "1.25.0"
    assert {a.name: a.version for a in cluster.artifacts_needed}["kubectl"] == "1.28.2"


def test_extra_args_win_even_over_what_the_node_finds_out(cluster_of: Callable[[str], Cluster]) -> None:
    cluster = cluster_of(
        "{kubelet: {extra_args: {node-ip: 10.1.1.1}, configuration: {failSwapOn: true}},"
        " proxy: {extra_args: {conntrack-max-per-core: 32768}}}"
    )
    assert words(cluster, "kubelet")["node-ip"] == "10.1.1.1"
    assert words(cluster, "kubelet")["hostname-override"] == "${COUPLER_NODE}"
    assert kubelet_configuration(cluster)["failSwapOn"] is True
    assert words(cluster, "kube-proxy")["conntrack-max-per-core"] == "32768"


@pytest.mark.parametrize("kubernetes", ["{feature_gates: {GracefulNodeShutdown: false}}", None])
def test_a_kubelet_without_graceful_shutdown_is_given_no_times(
    cluster_of: Callable[[str], Cluster], kubernetes: str | None
) -> None:
    cluster = cluster_of(kubernetes or "{kubelet: {shutdown_grace_period: 0s}}")
    assert {name for name in kubelet_configuration(cluster) if name.startswith("shutdown")} == set()
    assert "shutdownGracePeriod" in kubelet_configuration(cluster_of("{}"))


def test_without_an_audit_log_nothing_speaks_of_it(cluster_of: Callable[[str], Cluster]) -> None:
    cluster = cluster_of("{audit: false}")
    assert not any("audit" in name for name in [*files(cluster), *words(cluster, "kube-apiserver")])
    assert "audit" not in derivations(cluster)["api_server_restart"]()
    assert "/etc/coupler/kubernetes/audit-policy.yaml" in files(cluster_of("{}"))


def test_the_audit_log_holds_no_bodies() -> None:
    assert {rule["level"] for rule in audit_policy()["rules"]} == {"None", "Metadata"}
    assert audit_policy()["rules"][-1] == {"level": "Metadata"}


def test_everybody_who_asks_the_api_server_has_a_kubeconfig(cluster_of: Callable[[str], Cluster]) -> None:
    kubeconfigs = {
        path.removesuffix(".kubeconfig").rpartition("/")[2]: json.loads(text)
        for path, text in files(cluster_of("{}")).items()
        if path.endswith(".kubeconfig")
    }
    assert set(kubeconfigs) == {"controller-manager", "scheduler", "proxy", "kubelet", "addons"}
    for user, config in kubeconfigs.items():
        assert config["users"][0]["user"]["client-key"] == f"/etc/coupler/pki/kubernetes/{user}.key"
        assert config["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:6443"


@pytest.mark.parametrize(
    ("minor", "roles", "taints"),
    [
        (23, "control", ["control-plane", "master"]),
        (24, "control", ["control-plane"]),
        (30, "control, worker", []),
        (30, "etcd, lb", ["etcd", "lb"]),
    ],
)
def test_a_node_that_is_no_worker_has_its_roles_taints(
    tmp_path: Path, minor: int, roles: str, taints: list[str]
) -> None:
    (tmp_path / "cluster.yaml").write_text(
        "version: 1\nname: demo\ngit: {repository: 'git://10.0.0.5/demo.git'}\n"
        f"kubernetes: {{version: 1.{minor}.0}}\nload_balancer: {{kind: haproxy}}\n"
        f"nodes:\n  - {{name: a, address: 10.0.0.11, roles: [{roles}]}}\n"
        "  - {name: b, address: 10.0.0.12, roles: [control], taints: []}\n"
        "  - {name: c, address: 10.0.0.13, taints: ['gpu=yes:NoExecute', 'x:NoSchedule']}\n"
    )
    cluster = load_cluster(tmp_path / "cluster.yaml").cluster
    first, second, third = cluster.nodes
    assert cluster.taints_of(first) == tuple(f"node-role.kubernetes.io/{taint}:NoSchedule" for taint in taints)
    assert cluster.taints_of(second) == ()
    assert cluster.taints_of(third) == ("gpu=yes:NoExecute", "x:NoSchedule")


def test_the_table_is_in_the_page(cluster_of: Callable[[str], Cluster]) -> None:
    clusters = {minor: cluster_of(f"{{version: 1.{minor}.0}}") for minor in LATER}
    given = {program: {m: options(c, program) for m, c in clusters.items()} for program in SECTIONS}
    told = re.findall(r"^\| (?:kube|all).*> \|$", PAGE, re.MULTILINE)
    assert told == [row for change in CHANGES for row in told_of(change, given)]
    gates = re.findall(r"^\| 1\.(\d+) \| (.*) \|$", PAGE, re.MULTILINE)
    assert {gate: int(minor) for minor, names in gates for gate in re.findall(r"`(\w+)`", names)} == GATES_UNTIL


def told_of(change: Change, given: dict[str, dict[int, set[str]]]) -> Iterator[str]:
    """Yield the line of the table for a change; the column before the last is what was seen to be set."""
    program = "all" if change.program == EVERY else change.program
    names = ", ".join(f"`{option}`" for option in change.options)
    taken = " ".join(
        [f"from 1.{change.since}"] * bool(change.since) + [f"before 1.{change.until}"] * bool(change.until)
    )
    minors = [minor for minor, names in given.get(program, {}).items() if names.intersection(change.options)]
    by_us = ""
    if minors:
        first, last = minors[0], minors[-1]
        assert minors == list(range(first, last + 1))
        by_us = f"1.{first}" if first == last else f"1.{first} to 1.{last}" if last != LATER[-1] else f"from 1.{first}"
    yield f"| {program} | {names} | {taken} | {by_us} | {change.why} | <{change.source}> |"
