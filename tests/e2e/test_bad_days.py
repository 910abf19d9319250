"""Bad days of a cluster: a node that is down, outages of everything, documents that must not get in, no repository."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Answer, Site

pytestmark = pytest.mark.lab

MEMBERS = ("node-1", "node-2", "node-3")


@dataclass(frozen=True)
class OneDown:
    """Three runs: with node-3, a member of etcd, switched off; when it is on again; and once more."""

    site: Site
    without: Answer
    completing: Answer
    again: Answer


@pytest.fixture(scope="module")
def one_down(make_site: Callable[[int], Site]) -> OneDown:
    site = make_site(4)
    site.lab.kill("node-3")
    without = site.cluster("init")
    site.lab.start("node-3")
    return OneDown(site, without, site.json("init"), site.json("init"))


@pytest.fixture(scope="module")
def site(one_down: OneDown) -> Site:
    assert one_down.again.exit_code == 0, one_down.again.stderr
    return one_down.site


# One of four nodes is down


def test_init_without_one_node_brings_up_the_others_and_names_it(one_down: OneDown) -> None:
    answer = one_down.without
    assert answer.exit_code == 5
    first, *rest = answer.stdout.splitlines()
    assert re.search(r": 3 of 4 nodes healthy at commit [0-9a-f]{12}, etcd has 2 healthy members$", first)
    [position] = [number for number, line in enumerate(rest) if "node-3" in line]
    assert re.match(r"  unreachable: node-3: core@10\.213\.\d+\.13:22 cannot be reached: ", rest[position])
    assert rest[position + 1].startswith("    next: check that the machine is up")
    assert rest[-1].startswith("next: mend what is named above, then run `cluster init` again")


def test_init_completes_the_node_that_was_down_and_reports_the_rest_unchanged(one_down: OneDown) -> None:
    answer = one_down.completing
    assert answer.exit_code == 0, answer.stderr
    assert answer.data["changed"] is True
    done = {"node-1": "unchanged", "node-2": "unchanged", "node-3": "done", "node-4": "unchanged"}
    assert answer.states("bootstrap") == answer.states("pull") == done
    assert set(answer.states("health").values()) == {"ok"}


def test_the_run_after_that_changes_nothing(one_down: OneDown) -> None:
    assert (one_down.again.exit_code, one_down.again.data["changed"]) == (0, False)
    assert one_down.again.data["commit"] == one_down.completing.data["commit"]


def test_status_names_a_node_that_is_down(site: Site) -> None:
    site.lab.kill("node-4")
    try:
        answer = site.cluster("status")
        assert answer.exit_code == 5
        assert re.search(r"^node-4 .* unreachable ", answer.stdout, re.MULTILINE)
        assert re.search(r"^node-4: unreachable: core@10\.213\.\d+\.14:22 cannot be reached", answer.stdout, re.M)
        assert site.json("init", "--limit", "node-4").exit_code == 4
    finally:
        site.lab.start("node-4")


# Outages


def await_health(site: Site) -> None:
    """Wait until etcd has its quorum and every node has looked for its configuration; they are only asked."""
    patiently = "for _ in $(seq 100); do %s && exit; sleep 0.3; done 2>&1; exit 1"
    site.everywhere(patiently % "[ -e /run/coupler/status.json ]")
    for node in MEMBERS:
        site.inside(node, patiently % ". /etc/profile.d/coupler.sh; etcdctl endpoint health --cluster")


def test_after_a_reboot_of_every_node_the_cluster_is_healthy_by_itself(site: Site) -> None:
    published, boots = site.published, site.everywhere("cat /proc/sys/kernel/random/boot_id; cat /proc/1/stat")
    site.lab.reboot(*site.machines)
    await_health(site)
    status = site.json("status")
    assert status.exit_code == 0, status.stdout
    assert {node["applied"] for node in status.data["nodes"]} == {published}
    assert {node["pull"]["result"] for node in status.data["nodes"]} == {"unchanged"}
    assert site.everywhere("cat /proc/sys/kernel/random/boot_id; cat /proc/1/stat") != boots
    assert site.json("init").data["changed"] is False


def test_with_git_cut_off_a_reboot_ends_at_the_last_good_document(site: Site) -> None:
    published = site.published
    site.lab.stop_git()
    try:
        site.lab.reboot(*site.machines)
        await_health(site)
        status = site.json("status")
        assert {node["applied"] for node in status.data["nodes"]} == {published}
        for node in status.data["nodes"]:
            assert node["pull"]["result"] == "kept"
            assert "cannot fetch main of git://10.213." in node["pull"]["reason"]
        assert "cannot fetch main" in site.inside("node-1", "journalctl -b -u coupler-pull -o cat")
    finally:
        site.lab.start_git()
    assert site.cluster("init").exit_code == 0
    assert {node["pull"]["result"] for node in site.json("status").data["nodes"]} == {"unchanged"}


# Documents that must not get in


@pytest.fixture
def push(site: Site, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Commit by hand, past `cluster`; afterwards the branch is where the nodes are."""

    def commit(document: str | None, *signing: str) -> str:
        tree = tmp_path / "tree"
        git = ["git", "-C", str(tree), "-c", "user.name=hand", "-c", "user.email=hand@example.org", *signing]
        subprocess.run(["git", "clone", "-q", str(site.lab.repository_path), str(tree)], check=True)
        file = tree / "cloud-config.yaml"
        if document is None:
            file.unlink()
        else:
            file.write_text(document)
        subprocess.run([*git, "commit", "-qam", "by hand"], check=True)
        subprocess.run([*git, "push", "-q"], check=True)
        return site.published

    yield commit
    site.git("update-ref", "refs/heads/main", site.inside("node-1", "cat /run/coupler/applied"))
    site.everywhere("systemctl start coupler-pull")


def signed_by(key: Path) -> tuple[str, ...]:
    return ("-c", "gpg.format=ssh", "-c", f"user.signingkey={key}", "-c", "commit.gpgsign=true")


def assert_kept(site: Site, good: str, bad: str, reason: str) -> None:
    """Every node stays at the good commit, says why in its journal, and status passes it on."""
    for node in site.machines:
        assert site.lab.exec(node, ["systemctl", "start", "coupler-pull"]).returncode != 0
    assert set(site.everywhere("cat /run/coupler/applied").values()) == {good}
    assert set(site.everywhere("basename $(readlink /var/lib/coupler/last-good.yaml) .yaml").values()) == {good}
    assert re.search(reason, site.inside("node-2", "journalctl -u coupler-pull -o cat"))
    answer = site.cluster("status")
    assert answer.exit_code == 5
    for node in site.machines:
        assert re.search(rf"^{node}: is not at the published commit: .*{reason}", answer.stdout, re.MULTILINE)
    nodes = site.json("status").data["nodes"]
    assert {node["pull"]["fetched"] for node in nodes} == {bad}
    assert all(node["etcd"] is None or node["etcd"]["healthy"] for node in nodes)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("#cloud-config\ncoreos:\n  units: nonsense\n", "is not valid: .*cannot unmarshal"),
        ("#cloud-config\ncoreos: [\n", "is not valid"),
        ("hostname: no-header\n", "is not valid"),
        (None, "has no cloud-config.yaml"),
    ],
    ids=["wrong type", "no YAML", "no header", "no document"],
)
def test_nodes_keep_the_last_good_document_and_say_why(
    site: Site, push: Callable[..., str], document: str | None, reason: str
) -> None:
    good = site.published
    assert_kept(site, good, push(document, *signed_by(site.lab.private_key)), reason)


@pytest.mark.parametrize("signer", ["nobody", "a stranger"])
def test_nodes_take_no_commit_without_an_allowed_signature(
    site: Site, push: Callable[..., str], tmp_path: Path, signer: str
) -> None:
    good = site.published
    signing: tuple[str, ...] = ()
    if signer != "nobody":
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
        signing = signed_by(tmp_path / "key")
    document = site.git("show", "main:cloud-config.yaml") + "\nhostname: taken-over\n"
    assert_kept(site, good, push(document, *signing), "has no signature of an allowed signer")
    assert "taken-over" not in site.everywhere("hostname").values()


def test_init_publishes_over_a_bad_commit_and_every_node_follows(site: Site, push: Callable[..., str]) -> None:
    bad = push("#cloud-config\ncoreos: [\n", *signed_by(site.lab.private_key))
    answer = site.json("init")
    assert answer.exit_code == 0, answer.stderr
    assert site.git("rev-parse", "main^") == bad
    assert set(site.everywhere("cat /run/coupler/applied").values()) == {site.published}


# No repository


def test_without_a_repository_to_publish_to_nothing_is_done(site: Site) -> None:
    before = site.everywhere("find /etc /opt /var/lib/coupler -printf '%p %C@\\n' | sort")
    repository = site.lab.repository_path
    repository.rename(f"{repository}.gone")
    try:
        site.edit("  election_timeout: 250\n", "  election_timeout: 300\n")
        answer = site.cluster("init")
        assert answer.exit_code == 4
        assert f"error: the git repository {repository} cannot be read\n" in answer.stderr
        assert re.search(r"^  why: fatal: .* does not appear to be a git repository$", answer.stderr, re.MULTILINE)
        assert re.search(r"^  next: check git.push and git.repository in cluster.yaml", answer.stderr, re.MULTILINE)
        assert answer.stdout == ""
        assert "[5/" not in answer.stderr
        envelope = site.json("init").envelope
        assert (envelope["ok"], envelope["exit_code"], envelope["data"]) == (False, 4, None)
        assert site.everywhere("find /etc /opt /var/lib/coupler -printf '%p %C@\\n' | sort") == before
        status = site.cluster("status")
        assert "published commit unknown" in status.stdout
    finally:
        shutil.move(f"{repository}.gone", repository)
        site.edit("  election_timeout: 300\n", "  election_timeout: 250\n")
    assert site.json("init").data["changed"] is False


def test_a_push_that_is_refused_is_explained_and_the_next_run_publishes(site: Site) -> None:
    before = site.published
    hook = site.lab.repository_path / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho 'the branch is frozen' >&2\nexit 1\n")
    hook.chmod(0o755)
    try:
        site.edit("  election_timeout: 250\n", "  election_timeout: 300\n")
        answer = site.cluster("init")
        assert answer.exit_code == 1
        assert f"error: the push to {site.lab.repository_path} was refused\n" in answer.stderr
        assert "  why: remote: the branch is frozen\n" in answer.stderr
        assert site.published == before
        assert set(site.everywhere("cat /run/coupler/applied").values()) == {before}
    finally:
        hook.unlink()
    assert site.cluster("init").exit_code == 0
    assert site.git("rev-parse", "main^") == before
