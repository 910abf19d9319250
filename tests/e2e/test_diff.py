"""`cluster diff` on two lab machines: same after init; every kind of drift made by hand is found; then repaired."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Answer, Site

pytestmark = pytest.mark.lab

DOCS = (Path(__file__).parents[2] / "docs" / "preview.md").read_text()
PULLED = (
    "! -path /run/coupler/status.json ! -path '/run/coupler/*.lock' ! -path '/run/coupler/artifacts*'"
    " ! -path '/run/coupler/health*'"
)
"""Of what a node writes, what its own units write anew: a pull, or a look at its health, may come at any moment."""
STATE = f"find /etc /opt /var/lib/coupler /run/coupler -type f {PULLED} -printf '%p %m %s %C@\\n' | sort"

DRIFT = {
    "echo '# by hand' >> /etc/coupler/pull.conf": ("file", "/etc/coupler/pull.conf", "has another content"),
    "chmod 0600 /etc/coupler/nodes": ("file", "/etc/coupler/nodes", "has mode 0600, not 0644"),
    "chown core /opt/bin/coupler-fetch": ("file", "/opt/bin/coupler-fetch", "belongs to core:root, not root"),
    "rm /etc/profile.d/coupler.sh": ("file", "/etc/profile.d/coupler.sh", "is missing"),
    "rm /opt/bin/coupler-flannel-network; mkdir /opt/bin/coupler-flannel-network": (
        *("file", "/opt/bin/coupler-flannel-network"),
        "is no file",
    ),
    "sed -i /REBOOT_STRATEGY/d /etc/coreos/update.conf": (
        *("file", "/etc/coreos/update.conf"),
        "has another content",
    ),
    "sed -i s/Restart=always/Restart=no/ /etc/systemd/system/etcd-gateway.service": (
        *("unit", "/etc/systemd/system/etcd-gateway.service"),
        "has another content",
    ),
    "systemctl disable --quiet flanneld.service": (
        *("unit", "flanneld.service"),
        "is disabled, and the document enables it",
    ),
    "systemctl enable --quiet coupler-artifacts.service": None,  # it has no [Install]: nothing changes
    "systemctl stop coupler-pull.timer": ("unit", "coupler-pull.timer", "is inactive, and the document starts it"),
    "mkdir -p /etc/systemd/system/etcd.service.d; "
    "echo '[Service]' > /etc/systemd/system/etcd.service.d/override.conf": (
        *("drop-in", "/etc/systemd/system/etcd.service.d/override.conf"),
        "is not in the document",
    ),
    "sed -i 's/^installed etcd [^ ]*/installed etcd 3.0.0/' /run/coupler/artifacts": ("program", "etcd", None),
    "echo >> /opt/bin/etcdctl": ("program", "etcdctl", "/opt/bin/etcdctl is not the program that was installed"),
}
"""What is done to a node, and the difference that it makes."""


@pytest.fixture(scope="module")
def site(make_site: Callable[[int], Site]) -> Site:
    site = make_site(2)
    unpublished = site.json("diff")
    assert (unpublished.exit_code, unpublished.data["published"]) == (1, None)
    assert {change["kind"] for change in unpublished.data["changes"]} == {"added"}
    assert site.cluster("diff", "node-1").stderr.startswith("error: nothing is published yet")
    assert site.cluster("init", "--lab").exit_code == 0
    return site


def differences(answer: Answer, node: str) -> set[tuple[str, str, str]]:
    [found] = [entry for entry in answer.data["nodes"] if entry["node"] == node]
    return {(one["what"], one["name"], one["text"]) for one in found["differences"]}


def test_after_init_everything_is_the_same_and_asking_changes_nothing(site: Site) -> None:
    before = site.everywhere(STATE)
    [block] = re.findall(r"^```sh\n(.*?)^```", DOCS, re.MULTILINE | re.DOTALL)
    one, everything = (site.cluster(*command.split()[1:]) for command in block.splitlines())
    assert (one.exit_code, "\nnode-1: same" in one.stdout) == (0, True)
    assert everything.exit_code == 0
    assert [(entry["node"], entry["differences"]) for entry in everything.data["nodes"]] == [
        ("node-1", []),
        ("node-2", []),
    ]
    assert site.everywhere(STATE) == before


def test_preview_is_what_the_node_has(site: Site) -> None:
    preview = site.json("preview", "node-1").data
    for name, value in preview["variables"].items():
        if value is not None:
            assert site.inside("node-1", f". /run/coupler/identity.env; echo ${name}") == value
    running = site.inside("node-1", "systemctl list-units --state=active --plain --no-legend | cut -d' ' -f1").split()
    for unit in preview["units"]:
        if unit["start"] == "skipped":
            assert unit["name"] not in running
    assert {"etcd.service", "etcd-gateway.service", "coupler.target"} <= set(running)


def test_drift_of_every_kind_is_found_and_put_right(site: Site) -> None:
    site.inside("node-1", "\n".join(["set -e", *DRIFT]))
    answer = site.json("diff", "node-1", "node-2")
    assert answer.exit_code == 1
    assert differences(answer, "node-2") == set()
    found = differences(answer, "node-1")
    wanted = {difference for difference in DRIFT.values() if difference}
    assert {(what, name) for what, name, _ in found} == {(what, name) for what, name, _ in wanted}
    assert {one for one in wanted if one[2]} <= found
    lines = {line for one in answer.data["nodes"][0]["differences"] for line in one["diff"]}
    assert {"+# by hand", "-REBOOT_STRATEGY=etcd-lock", "-Restart=always", "+Restart=no"} <= lines

    by_hand = "rmdir /opt/bin/coupler-flannel-network; rm -r /etc/systemd/system/etcd.service.d "
    site.inside("node-1", by_hand + "/var/lib/coupler/artifacts/etcdctl.installed; systemctl daemon-reload")
    plan = site.json("init", "--dry-run", "--limit", "node-1")
    assert plan.states("pull") == {"node-1": "planned"}
    init = site.json("init")
    assert init.exit_code == 0, init.stderr
    assert init.states("pull") == {"node-1": "done", "node-2": "unchanged"}
    [told] = [host["text"] for step in init.data["steps"] for host in step["hosts"] if host["state"] == "done"]
    assert told.startswith("put right: /etc/coupler/nodes, /etc/coupler/pull.conf, ")
    assert differences(site.json("diff", "node-1"), "node-1") == set()
    assert site.json("init").data["changed"] is False


def test_edit_of_cluster_yaml_shows_in_the_document(site: Site) -> None:
    old = site.file.read_text()
    site.edit("election_timeout: 250", "election_timeout: 300")
    answer = site.cluster("diff")
    assert answer.exit_code == 1
    assert "\nchanged  unit  etcd.service  role etcd\n" in answer.stdout
    assert "\n+          --election-timeout=300 \\\n" in answer.stdout
    site.file.write_text(old)
    same = site.cluster("diff")
    assert (same.exit_code, f"is what is published as commit {site.published[:12]}" in same.stdout) == (0, True)


def test_node_that_does_not_answer_is_named(site: Site) -> None:
    site.inside("node-2", "systemctl stop 'ssh*.socket' 'ssh*.service'")  # refused at once; a dead host takes 10 s
    both = site.json("diff", "--all")
    assert (both.exit_code, list(both.failed)) == (5, ["node-2"])
    assert differences(both, "node-1") == set()
