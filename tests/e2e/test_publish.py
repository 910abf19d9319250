"""`cluster publish` on real machines: for all, for a few first, back again, over a branch that somebody has spoilt."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Site

pytestmark = pytest.mark.lab

EXTRA = """\
  coreos:
    units:
      - name: hello.service
        enable: true
        command: start
        content: |
          [Service]
          Type=oneshot
          RemainAfterExit=yes
          ExecStart={command}
          [Install]
          WantedBy=multi-user.target
"""


@pytest.fixture(scope="module")
def site(make_cluster: Callable[[int, str], Site]) -> Site:
    return make_cluster(4, "6s")


@pytest.fixture(autouse=True)
def afresh(site: Site) -> Iterator[None]:
    """Leave every node and cluster.yaml as they were."""
    with site.put_back():
        yield
    assert site.git("for-each-ref", "--format=%(refname)") == "refs/heads/main"


def pull(site: Site) -> dict[str, dict[str, Any]]:
    """Let every node look, as its timer does; return the reports."""
    for node in site.machines:
        site.lab.exec(node, ["systemctl", "start", "coupler-pull"])
    return {node: json.loads(text) for node, text in site.everywhere("cat /run/coupler/status.json").items()}


def applied(site: Site) -> dict[str, str]:
    return site.everywhere("cat /run/coupler/applied")


def test_the_commit_says_what_changes_and_nodes_follow_by_themselves(site: Site) -> None:
    before = site.published
    site.edit("election_timeout: 250", "election_timeout: 260")
    site.extra(EXTRA.format(command="/bin/true"))
    plan = site.cluster("publish", "--dry-run")
    assert "would commit" in plan.stdout
    assert site.published == before
    answer = site.cluster("publish")
    assert answer.exit_code == 0, answer.stderr
    assert re.search(r"^next: cluster status; nodes look every 1h", answer.stdout, re.MULTILINE)
    assert site.git("rev-parse", "main^") == before
    message = site.git("log", "-1", "--format=%B", "main")
    assert message.splitlines()[0].startswith(f"{site.lab.name}: ")
    assert "changed: unit etcd.service (etcd)" in message
    assert "added: unit hello.service" in message
    assert set(applied(site).values()) == {before}
    pull(site)
    assert set(applied(site).values()) == {site.published}
    assert site.json("publish").data["changed"] is False


def test_a_few_nodes_try_it_first_and_the_others_follow(site: Site) -> None:
    before = site.published
    site.extra(EXTRA.format(command="/bin/true"))
    answer = site.json("publish", "--to", "node-3")
    assert answer.exit_code == 0, answer.stderr
    assert [step["title"] for step in answer.data["steps"]] == ["check", "publish", "pull", "health", "promote"]
    new = site.published
    assert applied(site) == {"node-1": before, "node-2": before, "node-3": new, "node-4": before}
    assert {report["result"] for report in pull(site).values()} == {"applied", "unchanged"}
    assert set(applied(site).values()) == {new}


def test_what_does_not_do_on_a_few_nodes_stays_there(site: Site) -> None:
    before = site.published
    site.extra(EXTRA.format(command="/bin/sh -c '[ $$(hostname) != node-2 ]'"))
    answer = site.cluster("publish", "--to", "node-2", "--to", "node-4")
    assert answer.exit_code == 5
    assert re.search(r"^  failed: node-2: .*not healthy within 6 s: hello\.service failed", answer.stdout, re.MULTILINE)
    assert "main stays where it is" in answer.stdout
    tried = site.git("rev-parse", "main-canary")
    assert site.published == before
    assert applied(site) == {"node-1": before, "node-2": before, "node-3": before, "node-4": tried}
    # At its next look the one that is well with it stays with it, and says so.
    report = pull(site)["node-4"]
    assert (report["result"], report["applied"]) == ("unchanged", tried)
    assert "this node tries a commit for the others" in report["reason"]
    # Taken back, it is taken back there too.
    revert = site.json("publish", "--revert", "HEAD")
    assert revert.exit_code == 0, revert.stderr
    assert f"Coupler-Replaces: {tried}" in site.git("log", "-1", "--format=%B", "main")
    pull(site)
    assert set(applied(site).values()) == {site.published}
    assert set(site.everywhere("systemctl show -P LoadState hello").values()) == {"not-found"}


def test_back_to_an_earlier_commit(site: Site) -> None:
    document = site.git("show", "main:cloud-config.yaml")
    first = site.published
    site.extra(EXTRA.format(command="/bin/true"))
    assert site.cluster("publish").exit_code == 0
    second = site.published
    answer = site.cluster("publish", "--revert", "HEAD~1")
    assert answer.exit_code == 0, answer.stderr
    assert f"back to {first[:12]}" in answer.stdout
    assert re.search(rf"^next: put cluster.yaml back too, .* show {first[:12]}:cluster.yaml", answer.stdout, re.M)
    assert site.git("rev-parse", "main^") == second
    assert site.git("show", "main:cloud-config.yaml") == document
    pull(site)
    assert set(applied(site).values()) == {site.published}


def test_the_examples_of_the_page_work_in_their_order(site: Site) -> None:
    page = (Path(__file__).parents[2] / "docs" / "boot-from-git.md").read_text()
    commands = [line for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    assert len(commands) > 5
    for number, command in enumerate(commands):
        site.file.write_text(
            re.sub(r"election_timeout: \d+", f"election_timeout: {260 + number}", site.file.read_text())
        )
        words = shlex.split(command, comments=True)
        assert words.pop(0) == "cluster"
        answer = site.cluster(*words)
        # Between a publication and their next look nodes are behind, and status says so.
        assert answer.exit_code == (5 if words == ["status"] else 0), f"{command}: {answer.stderr}"


def test_a_commit_that_is_not_there_is_told_with_those_that_are(site: Site) -> None:
    before = site.published
    answer = site.cluster("publish", "--revert", "0123abcd")
    assert answer.exit_code == 2
    assert "has no commit '0123abcd'" in answer.stderr
    assert before[:12] in answer.stderr
    assert site.cluster("publish", "--to", "node-9").exit_code == 2
    assert site.cluster("publish", "--to", "120%").exit_code == 2
    assert site.cluster("publish", "--to", "node-1", "--revert", "HEAD").exit_code == 2
    assert site.published == before


def test_a_branch_that_somebody_has_rewound_is_published_over(site: Site) -> None:
    first = site.published
    site.extra(EXTRA.format(command="/bin/true"))
    assert site.cluster("init").exit_code == 0
    second = site.published
    site.git("update-ref", "refs/heads/main", first)
    assert {report["result"] for report in pull(site).values()} == {"kept"}
    answer = site.json("init")
    assert answer.exit_code == 0, answer.stderr
    assert site.git("rev-parse", "main^") == first
    assert f"Coupler-Replaces: {second}" in site.git("log", "-1", "--format=%B", "main")
    assert set(applied(site).values()) == {site.published}


def test_publish_over_ssh(site: Site) -> None:
    site.inside("node-1", "runuser -u core -- git init -q --bare -b main /home/core/cluster.git")
    address = site.inside("node-1", ". /run/coupler/identity.env; echo $COUPLER_ADDRESS")
    local = re.search(r"  push: (.*)\n", site.file.read_text())
    assert local
    site.edit(local[0], f"  push: ssh://core@{address}/home/core/cluster.git\n")
    answer = site.cluster("publish")
    assert answer.exit_code == 0, answer.stderr
    log = site.inside("node-1", "runuser -u core -- git -C /home/core/cluster.git log --format=%s main")
    assert log == f"{site.lab.name}: first document"
    # Somebody else's commit is not lost, and the next run starts from it.
    subprocess.run(
        site.lab.ssh_command(
            "node-1",
            (
                "cd cluster.git && git update-ref refs/heads/main $(git -c user.name=o -c user.email=o@example.org "
                "commit-tree -p main -m theirs main^{tree})",
            ),
        ),
        check=True,
    )
    site.edit("election_timeout: 250", "election_timeout: 260")
    assert site.cluster("publish").exit_code == 0
    log = site.inside("node-1", "runuser -u core -- git -C /home/core/cluster.git log --format=%s main")
    assert log.splitlines()[1:] == ["theirs", f"{site.lab.name}: first document"]
    site.inside("node-1", "rm -rf /home/core/cluster.git")
