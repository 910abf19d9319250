"""Members of etcd come, are lost and go: new ones join, one with an empty disk is replaced, and one is taken out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Site

pytestmark = pytest.mark.lab

LOST = ("node-2", "node-3", "node-4")
"""Too many to lose."""
EVERYBODY = {"node-1", "node-2", "node-3", "node-4", "node-5"}


def names(site: Site, through: str = "node-1") -> dict[str, str]:
    """Return the members of etcd, as one of them knows them: name → id."""
    answer = json.loads(site.inside(through, "sh -lc 'etcdctl member list -w json'"))
    assert not any(member.get("isLearner") for member in answer["members"])
    return {member["name"]: str(member["ID"]) for member in answer["members"]}


def healthy(site: Site) -> set[str]:
    return {entry["name"] for entry in site.json("status").data["nodes"] if entry["etcd"] and entry["etcd"]["healthy"]}


@pytest.fixture(scope="module")
def site(make_site: Callable[[int], Site]) -> Site:
    """Five nodes, of which one is a member of etcd."""
    site = make_site(5)
    head, second, rest = site.file.read_text().partition("  - name: node-2")
    site.file.write_text(head + second + rest.replace("roles: [control]", "roles: [worker]"))
    answer = site.cluster("init")
    assert answer.exit_code == 0, answer.stderr
    assert set(names(site)) == {"node-1"}
    site.inside("node-1", "sh -lc 'etcdctl put kept yes'")
    return site


def test_one_member_becomes_five(site: Site) -> None:
    site.edit("roles: [worker", "roles: [control, worker")
    answer = site.json("init")
    assert answer.exit_code == 0, answer.stdout + answer.stderr
    assert answer.states("members") == {"node-1": "unchanged", **dict.fromkeys(EVERYBODY - {"node-1"}, "done")}
    assert set(names(site)) == healthy(site) == EVERYBODY
    assert site.json("init").data["changed"] is False


def test_nodes_with_empty_disks_are_held_until_init_replaces_their_members(site: Site) -> None:
    before = names(site)
    site.inside("node-1", "sh -lc 'etcdctl put late yes'")
    site.lab.replace("node-3", "node-4")
    answer = site.json("init")
    assert answer.exit_code == 0, answer.stdout + answer.stderr
    done = {node for node, state in answer.states("members").items() if state == "done"}
    assert done == {"node-3", "node-4"}
    after = names(site)
    assert {name for name in EVERYBODY if after[name] != before[name]} == done, (
        "what the lost ones promised is nobody's"
    )
    assert site.inside("node-3", "sh -lc 'etcdctl get --print-value-only kept late'").split() == ["yes"]
    assert healthy(site) == EVERYBODY


def test_a_member_that_lost_its_data_does_not_come_back_by_itself(site: Site) -> None:
    site.inside("node-2", "systemctl stop etcd; rm -rf /var/lib/etcd/member; systemctl start --no-block etcd; sleep 3")
    status = site.cluster("status")
    assert status.exit_code == 5
    assert "etcd on node-2: it was a member, and its data is gone: cluster init makes it a new one" in status.stdout
    dry = site.json("init", "--dry-run")
    assert dry.states("members")["node-2"] == "planned"
    answer = site.json("init")
    assert answer.exit_code == 0, answer.stdout + answer.stderr
    assert healthy(site) == EVERYBODY


def test_a_run_that_was_cut_off_after_the_announcement_is_completed_by_the_next(site: Site) -> None:
    address = site.inside("node-2", ". /run/coupler/identity.env; echo $COUPLER_ADDRESS")
    site.inside("node-2", "systemctl stop etcd; rm -rf /var/lib/etcd/member")
    old = int(names(site)["node-2"])
    site.inside("node-1", f"sh -lc 'etcdctl member remove {old:x}'")
    site.inside(
        "node-1",
        "for _ in $(seq 40); do "
        f"sh -lc 'etcdctl member add node-2 --learner --peer-urls=https://{address}:2380' && break; sleep 0.5; done",
    )
    site.inside("node-2", "systemctl start etcd")
    answer = site.json("init")
    assert answer.exit_code == 0, answer.stdout + answer.stderr
    assert set(names(site)) == EVERYBODY
    assert healthy(site) == EVERYBODY


def test_what_cluster_yaml_no_longer_has_is_named_and_taken_out_when_asked(site: Site) -> None:
    refused = site.cluster("remove", "node-5", "--yes")
    assert refused.exit_code == 2
    assert "cluster.yaml has node-5, as a member of etcd" in refused.stderr
    text = site.file.read_text()
    site.file.write_text(text.partition("  - name: node-5")[0].replace("worker]", "worker, lb]", 1))
    try:
        init = site.cluster("init")
        assert (
            "etcd has the member node-5, and cluster.yaml none of that name; next: cluster remove node-5" in init.stdout
        )
        asked = site.cluster("remove", "node-5")
        assert asked.exit_code == 2, "there is no terminal to ask on"
        answer = site.cluster("remove", "node-5", "--yes")
        assert answer.exit_code == 0, answer.stderr
        assert "next: switch node-5 off" in answer.stdout
        assert set(names(site)) == EVERYBODY - {"node-5"}
        assert "unchanged" in site.cluster("remove", "node-5", "--yes").stdout
    finally:
        site.file.write_text(text)


def test_a_former_member_needs_an_empty_folder_to_come_back(site: Site) -> None:
    answer = site.json("init")
    assert answer.exit_code == 5
    assert "its member was taken out of etcd, and its data with it" in answer.failed["node-5"]
    [failed] = answer.data["failed"]
    command = failed["next_step"].partition("'")[2].partition("'")[0]
    site.inside("node-5", command.replace("sudo ", ""))
    answer = site.json("init")
    assert answer.exit_code == 0, answer.stdout + answer.stderr
    assert set(names(site)) == EVERYBODY


def test_without_a_quorum_nobody_joins_and_the_reason_is_said(site: Site) -> None:
    site.lab.replace(*LOST)
    answer = site.json("init", *(word for node in LOST for word in ("--limit", node)))
    assert answer.exit_code == 5
    assert set(answer.failed) == set(LOST)
    assert "no member of etcd is healthy" in " ".join(answer.failed.values())
    assert site.inside("node-2", "ls /var/lib/etcd/member/wal 2>/dev/null | wc -l") == "0", "no second cluster"
