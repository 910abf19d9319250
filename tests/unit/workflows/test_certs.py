"""`cluster certs` without a node: what it says of the certificates in the operator's folder."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from coupler.__main__ import run
from coupler.adapters import pki
from coupler.model import load_cluster
from coupler.workflows.certificates import Store, certificates_of

if TYPE_CHECKING:
    from pathlib import Path

CLUSTER = """\
version: 1
name: demo
git: {repository: 'git://10.0.0.5/demo.git'}
nodes:
  - {name: node-1, address: 10.0.0.11, roles: [control]}
  - {name: node-2, address: 10.0.0.12, roles: [worker]}
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    monkeypatch.chdir(tmp_path)
    return Store(tmp_path / ".coupler" / "pki", load_cluster(tmp_path / "cluster.yaml").cluster)


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code = run([*arguments, "--output", "json"])
    return code, json.loads(capsys.readouterr().out)


def states(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, set[str]]]:
    """Return the exit code, and the states of certificates of each name."""
    code, envelope = answer(capsys, "certs", "status")
    found: dict[str, set[str]] = {}
    for entry in envelope["data"]["certificates"]:
        found.setdefault(entry["name"], set()).add(entry["state"])
    return code, found


def test_new_ones_are_all_well_and_named_with_node_and_authority(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.make(datetime.now(UTC))
    code, envelope = answer(capsys, "certs", "status")
    entries = envelope["data"]["certificates"]
    assert code == 0
    assert {entry["state"] for entry in entries} == {"ok"}
    cluster = load_cluster(tmp_path / "cluster.yaml").cluster
    expected = [(c.name, c.node, c.authority) for c in certificates_of(cluster)]
    assert [(entry["name"], entry["node"], entry["signed_by"]) for entry in entries][3:] == expected
    assert [entry["signed_by"] for entry in entries][:3] == ["itself"] * 3


def test_before_init_all_are_missing(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = states(capsys)
    assert code == 1
    assert set().union(*found.values()) == {"missing"}
    run(["certs", "status"])
    assert capsys.readouterr().out.endswith("next: cluster init\n")


@pytest.mark.parametrize(
    ("left", "code", "state"), [(timedelta(days=20), 0, "due"), (timedelta(days=-1), 1, "expired")], ids=["due", "past"]
)
def test_what_expires_is_told(
    store: Store, capsys: pytest.CaptureFixture[str], left: timedelta, code: int, state: str
) -> None:
    store.make(datetime.now(UTC))
    then = datetime.now(UTC) - pki.LIFETIME + left
    store.make(then, lambda certificate: certificate.name == "etcd/peer")
    found = states(capsys)
    assert found[0] == code
    assert {name for name, values in found[1].items() if values != {"ok"}} == {"etcd/peer"}
    assert found[1]["etcd/peer"] == {state}
    run(["certs", "status"])
    assert capsys.readouterr().out.endswith("next: cluster certs renew\n")


def test_names_that_have_changed_are_told(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store.make(datetime.now(UTC))
    (tmp_path / "cluster.yaml").write_text(f"{CLUSTER}kubernetes: {{endpoint: api.example.org}}\n")
    code, found = states(capsys)
    assert (code, found["kubernetes/apiserver"]) == (1, {"to be made anew"})


def test_a_dry_run_of_the_renewal_names_what_is_asked_for(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.make(datetime.now(UTC))
    cases = {
        (): [],
        ("--name", "kubernetes/kubelet"): ["nodes/node-1/kubernetes/kubelet", "nodes/node-2/kubernetes/kubelet"],
        ("--name", "kubernetes/kubelet", "--limit", "node-2"): ["nodes/node-2/kubernetes/kubelet"],
        ("--name", "kubernetes/admin"): ["kubernetes/admin"],
    }
    for options, expected in cases.items():
        code, envelope = answer(capsys, "certs", "renew", "--dry-run", *options)
        assert (code, envelope["data"]["certificates"]) == (0, expected), options
        assert envelope["data"]["changed"] is False


@pytest.mark.parametrize("options", [["--name", "etcd/ca"], ["--all", "--name", "etcd/peer"], ["--limit", "node-9"]])
def test_what_cannot_be_meant_is_a_usage_error(
    store: Store, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    store.make(datetime.now(UTC))
    assert answer(capsys, "certs", "renew", *options)[0] == 2
