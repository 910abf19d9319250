"""What `cluster preview` knows of a node before it exists."""

import hashlib
import json
import stat
from pathlib import Path

import pytest

from coupler.cloudinit.apply import Applier
from coupler.cloudinit.plan import plan_document
from coupler.cloudinit.scratch import ScratchRoot
from coupler.cloudinit.session import read_config
from coupler.errors import UsageError
from coupler.model import load_cluster
from coupler.render import render_document
from coupler.workflows.conditions import Condition, Fact, Start, Verdict, conditions_of, verdict
from coupler.workflows.machine import machine
from coupler.workflows.preview import preview
from coupler.workflows.steps.check import lineage

FIXTURES = Path(__file__).parents[2] / "fixtures" / "cluster" / "valid"


def seen(name="three-plus-five", node="worker-04", path=None):
    return preview(load_cluster(FIXTURES / f"{name}.yaml"), node, path)


def unit(found, name):
    return next(entry for entry in found.data()["units"] if entry["name"] == name)


def test_roles_decide_which_units_run():
    worker, member = seen(), seen(node="control-1")
    assert (unit(worker, "etcd.service")["start"], unit(worker, "etcd.service")["reasons"]) == (
        "skipped",
        ["no role etcd"],
    )
    assert unit(member, "etcd.service")["reasons"] == ["/opt/bin/etcd (etcd 3.5.25)"]
    assert unit(member, "etcd.service")["start"] == "waits"
    assert unit(worker, "coupler.target")["start"] == "runs"


def test_control_node_is_an_etcd_member_where_nobody_has_the_role():
    found = seen("one-node", "node-1")
    assert found.variables["COUPLER_ROLES"] == "control,worker,etcd"
    assert unit(found, "etcd.service")["start"] == "waits"


def test_masked_unit_does_not_run():
    locksmith = unit(seen("container-linux", "core-1"), "locksmithd.service")
    assert (locksmith["masked"], locksmith["start"], locksmith["reasons"]) == (
        True,
        "skipped",
        ["the document masks it"],
    )


def test_variables_are_those_of_the_nodes_row():
    assert seen("every-option", "node-2").variables == {
        "COUPLER_NODE": "node-2",
        "COUPLER_ADDRESS": "10.0.0.12",
        "COUPLER_INTERFACE": None,
        "COUPLER_ROLES": "control,etcd",
        "COUPLER_LABELS": "rack=a,example.org/disk=ssd",
        "COUPLER_METADATA": "region=eu,rack=a,example.org/disk=ssd",
        "COUPLER_TAINTS": "node-role.kubernetes.io/control-plane:NoSchedule",
    }


@pytest.mark.parametrize("name", ["one-node", "three-plus-five", "container-linux", "every-option"])
def test_files_are_those_that_applying_the_document_leaves(tmp_path, name):
    loaded = load_cluster(FIXTURES / f"{name}.yaml")
    document, kind = render_document(loaded.cluster), lineage(loaded.cluster)
    shipped = tmp_path / "usr/share/coreos/update.conf"
    shipped.parent.mkdir(parents=True)
    shipped.write_text("")
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    applier = Applier(ScratchRoot(tmp_path), lambda _: None, "/var/lib/coreos-cloudinit", faithful=True)
    applier.run(plan_document(read_config(document, kind), kind, {}))
    left = {
        f"/{path.relative_to(tmp_path)}": (path.read_text(), stat.S_IMODE(path.stat().st_mode))
        for path in tmp_path.rglob("*")
        if path.is_file() and not path.is_symlink() and path not in before
    }
    ours = {file.path: (file.content, file.mode) for file in machine(document, kind).files.values()}
    accounts = {path for path in left if path.startswith("/home/") or path in {"/etc/passwd", "/etc/group"}}
    accounts |= {"/etc/shadow", "/etc/gshadow"} & set(left)
    assert ours == {path: found for path, found in left.items() if path not in accounts}


def test_json_has_everything(tmp_path):
    data = json.loads(json.dumps(seen("every-option", "edge").data()))
    motd = next(file for file in data["files"] if file["path"] == "/etc/motd")
    assert motd["sha256"] == hashlib.sha256(motd["content"].encode()).hexdigest()
    assert (motd["mode"], motd["owner"], motd["kind"]) == ("0644", "root", "file")
    assert [Path(name).name for name in motd["origin"]["fragments"]] == ["extra.yaml"]
    docker = next(file for file in data["files"] if file["path"] == "/etc/docker/daemon.json")
    assert {"docker.options", "docker.options.log-driver"} <= {key["key"] for key in docker["origin"]["keys"]}
    assert {"does": "reload", "to": "systemd"} in data["operations"]
    assert unit(seen("every-option", "edge"), "etcd.service")["conditions"][0] == (
        "ConditionPathExists=/run/coupler/roles/etcd"
    )


def test_path_shows_the_content():
    assert seen(path="/etc/coupler/nodes").text().startswith("# name address mac roles labels metadata taints\n")
    assert seen(path="etcd.service").text().startswith("# /etc/systemd/system/etcd.service\n[Unit]\n")
    assert seen(path="/etc/systemd/system/etcd.service").text().startswith("[Unit]\n")
    assert seen(path="/run/coupler/identity.env").text().splitlines()[0] == "COUPLER_NODE=worker-04"
    assert [file["path"] for file in seen(path="etcd.service").data()["files"]] == ["/etc/systemd/system/etcd.service"]


@pytest.mark.parametrize(
    ("node", "path", "hint"),
    [
        ("worker-05", None, "did you mean `worker-04`?"),
        ("worker-04", "etcd.servce", "did you mean `etcd.service`?"),
        ("worker-04", "/etc/coupler/node", "did you mean `/etc/coupler/nodes`?"),
    ],
)
def test_typo_gets_a_suggestion(node, path, hint):
    with pytest.raises(UsageError) as raised:
        seen(node=node, path=path)
    assert raised.value.why == hint


ROLE = "/run/coupler/roles"


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ("", Verdict(Start.RUNS)),
        (f"ConditionPathExists={ROLE}/yes", Verdict(Start.RUNS)),
        (f"ConditionPathExists={ROLE}/no", Verdict(Start.SKIPPED, ("no role no",))),
        (f"ConditionPathExists=!{ROLE}/yes", Verdict(Start.SKIPPED, ("has role yes",))),
        (f"ConditionPathExists=!{ROLE}/no", Verdict(Start.RUNS)),
        (f"ConditionPathExists=|{ROLE}/no\nConditionPathExists=|{ROLE}/yes", Verdict(Start.RUNS)),
        (
            f"ConditionPathExists=|{ROLE}/no\nConditionPathExists=|!{ROLE}/yes",
            Verdict(Start.SKIPPED, ("no role no and has role yes",)),
        ),
        (
            f"ConditionPathExists=|{ROLE}/no\nConditionPathExists=|/else",
            Verdict(Start.DEPENDS, ("ConditionPathExists=|/else",)),
        ),
        ("ConditionPathExists=/later", Verdict(Start.WAITS, ("/later",))),
        ("ConditionPathExists=!/later", Verdict(Start.DEPENDS, ("ConditionPathExists=!/later",))),
        (f"ConditionPathExists=/later\nConditionPathExists={ROLE}/no", Verdict(Start.SKIPPED, ("no role no",))),
        (
            "ConditionPathExists=/later\nConditionVirtualization=vm",
            Verdict(Start.DEPENDS, ("/later", "ConditionVirtualization=vm")),
        ),
        (f"ConditionPathExists={ROLE}/no\nConditionPathExists=", Verdict(Start.RUNS)),
    ],
)
def test_conditions_decide_about_the_start(conditions, expected):
    def fact(condition: Condition):
        if condition.role:
            return Fact.YES if condition.role == "yes" else Fact.NO
        return Fact.LATER if condition.value == "/later" else Fact.UNKNOWN

    assert verdict(conditions_of([f"[Unit]\n{conditions}\n"]), fact) == expected


def test_drop_in_conditions_count_in_the_order_of_their_names():
    document = """\
#cloud-config
coreos:
  units:
    - name: a.service
      content: |
        [Unit]
        ConditionPathExists=/x
      drop_ins:
        - name: 20.conf
          content: |
            [Unit]
            ConditionPathExists=/z
        - name: 10.conf
          content: |
            [Unit]
            ConditionPathExists=
            ConditionPathExists=/y
"""
    made = machine(document, lineage(load_cluster(FIXTURES / "one-node.yaml").cluster))
    assert [condition.value for condition in made.units["a.service"].conditions] == ["/y", "/z"]
