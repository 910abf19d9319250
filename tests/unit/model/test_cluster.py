from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from coupler.errors import Severity
from coupler.model import Cluster, Role, load_cluster
from coupler.model.section import Section

CLUSTERS = Path(__file__).parents[2] / "fixtures" / "cluster"


def cluster(name: str) -> Cluster:
    return load_cluster(CLUSTERS / "valid" / f"{name}.yaml").cluster


def test_a_range_becomes_machines() -> None:
    nodes = cluster("thousand-nodes").nodes
    assert len(nodes) == 1000
    assert [node.name for node in nodes[4:7]] == ["etcd-5", "node-0001", "node-0002"]
    assert nodes[5].address == IPv4Address("10.0.1.0")
    assert nodes[998].name == "node-0994"
    assert nodes[998].address == IPv4Address("10.0.4.225")


def test_control_nodes_are_the_etcd_members_unless_nodes_have_the_role() -> None:
    assert [node.name for node in cluster("three-nodes").etcd_members] == ["node-1", "node-2", "node-3"]
    assert len(cluster("thousand-nodes").etcd_members) == 5
    assert cluster("container-linux").control_nodes == ()
    assert len(cluster("container-linux").etcd_members) == 3


def test_a_node_is_a_worker_unless_it_says_otherwise() -> None:
    nodes = {node.name: node for node in cluster("three-plus-five").nodes}
    assert nodes["worker-03"].roles == (Role.WORKER,)
    assert nodes["edge"].roles == (Role.WORKER, Role.LB)
    assert nodes["edge"].mac == "52:54:00:aa:bb:01"
    assert cluster("three-plus-five").load_balancers == (nodes["edge"],)


def test_a_node_overrides_how_it_is_reached() -> None:
    first, *_, edge = cluster("every-option").nodes
    assert (first.ssh_user, first.ssh_address, first.ssh_port) == ("core", "10.0.0.11", 22)
    assert (edge.ssh_user, edge.ssh_address, edge.ssh_port) == ("admin", "edge.example.org", 2222)


def test_values_keep_their_meaning() -> None:
    everything = cluster("every-option")
    assert everything.network.pods == IPv4Network("10.128.0.0/14")
    assert everything.etcd.extra_args == {"quota-backend-bytes": "4294967296", "auto-compaction-retention": "8"}
    assert everything.kubernetes.api_server.extra_args["anonymous-auth"] == "false"
    assert everything.kubernetes.feature_gates == {"StatefulSetAutoDeletePVC": True, "GracefulNodeShutdown": False}
    assert everything.git.interval.seconds == 90
    assert everything.os.version is not None
    assert everything.os.version.numbers == (4081, 3, 10)
    assert cluster("container-linux").os.reboot.strategy == "off"


def test_docker_options_keep_their_types() -> None:
    assert cluster("every-option").docker.options == {
        "log-driver": "json-file",
        "log-opts": {"max-size": "50m", "max-file": "3"},
        "live-restore": True,
        "max-concurrent-downloads": 6,
    }


def test_files_are_read_while_loading() -> None:
    everything = cluster("every-option")
    assert everything.ca_certificates[0].pem.startswith("-----BEGIN CERTIFICATE-----")
    assert everything.extra is not None
    assert everything.extra.document["write_files"][0]["permissions"] == "0644"
    assert everything.git.push == str(CLUSTERS / "everything.git")


def test_a_finding_about_the_fragment_points_into_it() -> None:
    extra = cluster("every-option").extra
    assert extra is not None
    path = ("coreos", "units", 0, "name")
    finding = extra.finding("taken", Severity.ERROR, path, "this unit exists")
    assert (Path(finding.location.file).name, finding.location.line) == ("extra.yaml", 10)


def test_a_key_without_a_value_counts_as_not_written(tmp_path: Path) -> None:
    text = (CLUSTERS / "valid" / "one-node.yaml").read_text()
    (tmp_path / "cluster.yaml").write_text(text + "etcd:\nkubernetes:\n  version:\nload_balancer:\n")
    assert load_cluster(tmp_path / "cluster.yaml").cluster == cluster("one-node")


def test_a_cluster_is_frozen() -> None:
    with pytest.raises(ValidationError):
        cluster("one-node").name = "other"  # type: ignore[misc]


def test_every_key_is_used_by_the_fixture_of_every_option() -> None:
    assert list(_unused(cluster("every-option"), "")) == []


def _unused(section: Section, path: str) -> Any:
    """Yield the keys that the section, and no section in the same list, sets."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if name not in section.model_fields_set:
            yield path + (field.alias or name)
        elif isinstance(value, Section):
            yield from _unused(value, f"{path}{name}.")
        elif isinstance(value, tuple) and value and isinstance(value[0], Section):
            unused = [set(_unused(item, f"{path}{name}[].")) for item in value]
            yield from set.intersection(*unused)


def test_every_key_is_described() -> None:
    sections = _sections(Cluster)
    missing = [f"{s.__name__}.{name}" for s in sections for name, f in s.model_fields.items() if not f.description]
    assert missing == []
    assert len(sections) >= 20


def _sections(kind: Any) -> set[type[Section]]:
    if isinstance(kind, type) and issubclass(kind, Section):
        return {kind}.union(*(_sections(field.annotation) for field in kind.model_fields.values()))
    return set().union(*(_sections(part) for part in get_args(kind)))
