"""`cluster init` on three lab machines: from nothing to a healthy cluster, and what later runs do to it."""

from __future__ import annotations

import base64
import fcntl
import re
import threading
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Answer, Site

pytestmark = pytest.mark.lab

STATE_OF_NODE = """
find /etc /opt /home/core/.ssh /root /srv /var/lib/coupler -xdev \\
    -path '*/repository.git' -prune -o -printf '%p %m %s %C@\\n' | sort
find /tmp /run -maxdepth 1 -name '*coupler*' | sort
systemctl show -p Id,InvocationID,NRestarts etcd etcd-gateway node-identity coupler.target coupler-pull.timer
journalctl --quiet --output=cat _PID=1 | grep -c Reloading
true
"""
"""Everything that a run could change: files (the last column is the time of the inode's last change) and units."""


@dataclass
class Processes(threading.Thread):
    """The command line and environment of every process of this host and its machines, while it is watching."""

    seen: set[bytes] = field(default_factory=set)
    enough: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    __hash__ = threading.Thread.__hash__

    def __enter__(self) -> Processes:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.enough.set()
        self.join()

    def run(self) -> None:
        while not self.enough.wait(0.02):
            for process in Path("/proc").glob("[0-9]*"):
                for name in ("cmdline", "environ"):
                    try:
                        self.seen.add((process / name).read_bytes())
                    except OSError:
                        continue


@dataclass(frozen=True)
class Beginning:
    """How the cluster came to be: a dry run with what it left alone, then the run, with what could be seen of it."""

    site: Site
    plan: Answer
    before_plan: dict[str, str]
    after_plan: dict[str, str]
    files_after_plan: list[str]
    refs_after_plan: str
    init: Answer
    processes: set[bytes]


@pytest.fixture(scope="module")
def beginning(make_site: Callable[[int], Site]) -> Beginning:
    site = make_site(3)
    before = site.everywhere(STATE_OF_NODE)
    plan = site.cluster("init", "--dry-run")
    after = site.everywhere(STATE_OF_NODE)
    files = [str(path.relative_to(site.folder)) for path in site.folder.rglob("*")]
    refs = site.git("for-each-ref")
    with Processes() as processes:
        init = site.cluster("init", "--lab")
    assert init.exit_code == 0, init.stderr
    return Beginning(site, plan, before, after, files, refs, init, processes.seen)


@pytest.fixture(scope="module")
def site(beginning: Beginning) -> Site:
    return beginning.site


def secrets(site: Site) -> list[bytes]:
    """Return lines of every private key, as they are and as they are in base64 at each of its three alignments."""
    keys = [*site.folder.glob(".coupler/pki/**/*.key"), site.lab.private_key]
    assert len(keys) > 20
    lines = [line for key in keys for line in key.read_bytes().splitlines() if len(line) == 64]
    again = [base64.b64encode(bytes(offset) + line)[4:-4] for line in lines for offset in range(3)]
    return lines + again


def assert_no_secret(site: Site, where: str, text: bytes) -> None:
    assert b"PRIVATE KEY" not in text, where
    assert not [secret for secret in secrets(site) if secret in text], where


def changes(before: dict[str, str], after: dict[str, str]) -> dict[str, list[str]]:
    """Return the lines of STATE_OF_NODE that differ, for each node where any do."""
    differing = {node: sorted(set(before[node].splitlines()) ^ set(after[node].splitlines())) for node in before}
    return {node: lines for node, lines in differing.items() if lines}


# The first run


def test_dry_run_says_what_would_be_done_and_does_nothing(beginning: Beginning) -> None:
    assert beginning.plan.exit_code == 0
    assert "nothing was changed" in beginning.plan.stdout
    for step in ("certificates", "publish", "bootstrap", "pull"):
        assert re.search(rf"\. {step}: planned: would ", beginning.plan.stdout), step
    assert beginning.plan.stdout.endswith("next: cluster init\n")
    assert changes(beginning.before_plan, beginning.after_plan) == {}
    assert beginning.refs_after_plan == ""
    assert not [name for name in beginning.files_after_plan if "pki" in name or name.endswith((".key", ".crt"))]


def test_init_ends_with_a_summary_and_the_next_command(beginning: Beginning) -> None:
    published = beginning.site.published[:12]
    first, *_, last = beginning.init.stdout.splitlines()
    assert first.endswith(f"3 of 3 nodes healthy at commit {published}, etcd has 3 healthy members")
    assert last == "next: cluster status"
    steps = re.findall(r"^\[(\d+)/10\] (\w+) …$", beginning.init.stderr, re.MULTILINE)
    assert [title for _, title in steps] == [
        *(
            "check",
            "preflight",
            "certificates",
            "publish",
            "bootstrap",
            "pull",
            "members",
            "restart",
            "health",
            "balance",
        )
    ]
    for node in beginning.site.machines:
        assert f"[6/10] pull · {node}: done: applied {published}" in beginning.init.stderr


def test_progress_off_a_terminal_is_plain_lines(beginning: Beginning) -> None:
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", beginning.init.stderr + beginning.init.stdout)


def test_etcdctl_inside_a_node_calls_every_member_healthy_over_tls(site: Site) -> None:
    done = site.lab.exec("node-1", ["sh", "-lc", "etcdctl endpoint health --cluster 2>&1"])
    assert done.returncode == 0, done.stdout
    assert len(re.findall(r"^https://10\.213\.\d+\.1[123]:2379 is healthy", done.stdout, re.MULTILINE)) == 3


def test_etcd_talks_to_nobody_without_a_certificate(site: Site) -> None:
    address = site.inside("node-1", ". /run/coupler/identity.env; echo $COUPLER_ADDRESS")
    ca = "--cacert /etc/coupler/pki/etcd/ca.crt"
    client = "--cert /etc/coupler/pki/etcd/client.crt --key /etc/coupler/pki/etcd/client.key"
    url = f"https://{address}:2379/version"
    assert "etcdserver" in site.inside("node-2", f"curl -sS {ca} {client} {url}")
    for options in (ca, f"--insecure {url.replace('https', 'http')}"):
        assert site.lab.exec("node-2", ["sh", "-c", f"curl -sSf {options} {url}"]).stdout == ""


def test_every_node_is_at_the_published_commit_which_is_signed(site: Site, tmp_path: Path) -> None:
    assert set(site.everywhere("cat /run/coupler/applied").values()) == {site.published}
    assert set(site.everywhere("basename $(readlink /var/lib/coupler/last-good.yaml)").values()) == {
        f"{site.published}.yaml"
    }
    signers = tmp_path / "signers"
    signers.write_text(f"lab {site.lab.public_key}\n")
    site.git("-c", "gpg.format=ssh", "-c", f"gpg.ssh.allowedSignersFile={signers}", "verify-commit", site.published)


def test_repository_holds_the_document_and_what_it_was_made_from(site: Site) -> None:
    assert site.git("ls-tree", "-r", "--name-only", "main").split() == ["cloud-config.yaml", "cluster.yaml"]
    assert site.git("show", "main:cluster.yaml") == site.file.read_text().strip()
    assert site.git("show", "main:cloud-config.yaml") == site.cluster("render").stdout.strip()


def test_nodes_hold_the_same_document_and_keys_of_their_own(site: Site) -> None:
    assert len(set(site.everywhere("sha256sum < /var/lib/coupler/last-good.yaml").values())) == 1
    assert len(set(site.everywhere("sha256sum < /etc/coupler/pki/etcd/server.key").values())) == 3
    loose = site.everywhere(
        "find /etc/coupler/pki -name '*.key' ! -perm 0600; find /etc/coupler /opt -perm /022 -type f"
    )
    assert set(loose.values()) == {""}
    assert set(site.everywhere("ls /etc/coupler/pki/etcd | grep -c ca.key || true").values()) == {"0"}


def test_nothing_half_written_is_left(site: Site) -> None:
    litter = "find /etc /opt /var/lib/coupler /run/coupler /tmp -name '*.new' -o -name '*.part' -o -name 'ansible-tmp*'"
    assert set(site.everywhere(litter).values()) == {""}
    assert not list(site.folder.glob(".coupler/run-*"))


# What must not be seen


def test_no_secret_is_in_the_repository(site: Site) -> None:
    objects = site.git("cat-file", "--batch-all-objects", "--batch-check=%(objectname)").split()
    for name in objects:
        assert_no_secret(site, name, site.git("cat-file", "-p", name).encode())


def test_no_secret_is_in_what_init_says_or_leaves_beside_the_keys(beginning: Beginning) -> None:
    site = beginning.site
    assert_no_secret(site, "output", (beginning.init.stdout + beginning.init.stderr).encode())
    for path in site.folder.glob(".coupler/*"):
        if path.is_file():
            assert_no_secret(site, path.name, path.read_bytes())
    for path in (site.folder / ".coupler").rglob("*.key"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert (site.folder / ".coupler").stat().st_mode & 0o077 == 0


def test_no_secret_is_in_a_journal(site: Site) -> None:
    for node, journal in site.everywhere("journalctl --quiet --all --output=export | tr -d '\\000'").items():
        assert_no_secret(site, node, journal.encode())


def test_no_secret_is_on_a_command_line_or_in_an_environment(beginning: Beginning) -> None:
    assert any(b"ansible" in seen for seen in beginning.processes)
    assert any(b"coupler-pull" in seen for seen in beginning.processes)
    assert_no_secret(beginning.site, "processes", b"\n".join(beginning.processes))


# Later runs


def test_later_runs_say_unchanged_and_change_nothing(site: Site) -> None:
    before = site.everywhere(STATE_OF_NODE)
    published = site.published
    second = site.json("init")
    assert second.exit_code == 0
    assert second.data["changed"] is False
    assert second.data["failed"] == []
    for step in ("bootstrap", "pull"):
        assert set(second.states(step).values()) == {"unchanged"}, step
    third = site.cluster("init")
    assert third.exit_code == 0
    assert f": unchanged at commit {published[:12]}" in third.stdout
    plan = site.json("init", "--dry-run")
    assert (plan.exit_code, plan.data["changed"]) == (0, False)
    assert "planned" not in plan.stdout
    assert changes(before, site.everywhere(STATE_OF_NODE)) == {}
    assert site.published == published


def test_status_shows_nodes_commits_members_and_certificates(site: Site) -> None:
    text = site.cluster("status")
    assert text.exit_code == 0
    assert site.published in text.stdout
    for node in site.machines:
        assert re.search(
            rf"^{node}  10\.\S+ +control,worker(,lb)? +{site.published[:12]}  .*\d+ days left", text.stdout, re.M
        )
        assert re.search(rf"^{node} +healthy +(leader|follower) ", text.stdout, re.M)
    answer = site.json("status")
    assert (answer.exit_code, answer.envelope["ok"]) == (0, True)
    assert answer.data["published"] == site.published
    nodes = answer.data["nodes"]
    assert [node["state"] for node in nodes] == ["healthy"] * 3
    assert {node["applied"] for node in nodes} == {site.published}
    assert sum(node["etcd"]["leader"] for node in nodes) == 1
    assert all(node["etcd"]["database_bytes"] > 0 and node["etcd"]["alarms"] == [] for node in nodes)
    assert all("/etc/coupler/pki/etcd/server.crt" in node["certificates"] for node in nodes)
    units = {unit["name"]: unit["active"] for unit in nodes[0]["units"]}
    assert units["etcd.service"] == units["etcd-gateway.service"] == units["node-identity.service"] == "active"


def test_json_answer_is_one_envelope_and_progress_is_beside_it(site: Site) -> None:
    answer = site.json("init")
    assert {key: answer.envelope[key] for key in ("version", "verb", "ok", "exit_code", "error")} == {
        "version": 1,
        "verb": "init",
        "ok": True,
        "exit_code": 0,
        "error": None,
    }
    assert answer.data["commit"] == site.published
    assert "[1/10] check …" in answer.stderr


def etcd_flags(site: Site) -> dict[str, list[str]]:
    running = site.everywhere("tr '\\0' '\\n' < /proc/$(systemctl show -P MainPID etcd)/cmdline")
    return {node: flags.split() for node, flags in running.items()}


def test_a_change_is_published_pulled_and_what_it_concerns_restarted(site: Site) -> None:
    parent = site.published
    identity = "systemctl show -P InvocationID etcd-gateway etcd"
    before = site.everywhere(identity)
    site.edit("  election_timeout: 250\n", '  election_timeout: 250\n  extra_args: {max-txn-ops: "256"}\n')
    plan = site.json("init", "--dry-run")
    assert plan.exit_code == 0
    assert {step["title"] for step in plan.data["steps"] if step["state"] == "planned"} >= {"publish", "pull"}
    assert site.published == parent
    answer = site.json("init")
    assert (answer.exit_code, answer.data["changed"]) == (0, True)
    assert set(answer.states("pull").values()) == {"done"}
    assert site.git("rev-parse", "main^") == parent
    assert set(site.everywhere("cat /run/coupler/applied").values()) == {site.published}
    assert all("--max-txn-ops=256" in flags for flags in etcd_flags(site).values())
    for node, after in site.everywhere(identity).items():
        (gateway_before, etcd_before), (gateway, etcd) = before[node].split(), after.split()
        assert (gateway == gateway_before, etcd == etcd_before) == (True, False), node
    assert site.cluster("status").exit_code == 0


def test_members_restart_one_after_another_each_ready_before_the_next(site: Site) -> None:
    """etcd is ready when it has a quorum (Type=notify); the machines share the host's monotonic clock."""
    before = site.everywhere("systemctl show -P InvocationID etcd")
    site.edit('{max-txn-ops: "256"}', '{max-txn-ops: "300"}')
    assert site.json("init").exit_code == 0
    after = site.everywhere("systemctl show -P InvocationID etcd")
    assert all(after[node] != before[node] for node in before), "every member was restarted"
    stopped = site.everywhere("systemctl show -P ActiveExitTimestampMonotonic etcd")
    ready = site.everywhere("systemctl show -P ActiveEnterTimestampMonotonic etcd")
    away = sorted((int(stopped[node]), int(ready[node])) for node in before)
    assert all(earlier[1] < later[0] for earlier, later in pairwise(away)), away


def test_limit_leaves_the_other_nodes_alone_until_a_run_without_it(site: Site) -> None:
    parent = site.published
    site.edit('{max-txn-ops: "300"}', '{max-txn-ops: "512"}')
    limited = site.json("init", "--limit", "node-2")
    assert limited.exit_code == 0
    assert limited.states("pull") == {"node-2": "done"}
    assert site.everywhere("cat /run/coupler/applied") == {
        "node-1": parent,
        "node-2": site.published,
        "node-3": parent,
    }
    status = site.cluster("status")
    assert status.exit_code == 5
    assert status.stdout.count(f"{parent[:12]} (behind)") == 2
    rest = site.json("init")
    assert rest.exit_code == 0
    assert rest.states("pull") == {"node-1": "done", "node-2": "unchanged", "node-3": "done"}
    assert all("--max-txn-ops=512" in flags for flags in etcd_flags(site).values())


def test_unknown_node_in_limit_is_a_usage_error(site: Site) -> None:
    answer = site.cluster("init", "--limit", "node-9")
    assert answer.exit_code == 2
    assert "error: no node is called node-9\n" in answer.stderr
    assert "cluster.yaml has node-1, node-2, node-3" in answer.stderr
    assert site.json("status", "--limit", "node-9").envelope["exit_code"] == 2


def test_a_damaged_file_on_a_node_is_mended_and_nothing_else_touched(site: Site) -> None:
    before = site.everywhere(STATE_OF_NODE)
    site.inside("node-2", "chmod 0644 /etc/coupler/pki/etcd/peer.key && rm /etc/coupler/pki/etcd/client.crt")
    assert site.json("init", "--dry-run").states("bootstrap") == {
        "node-1": "unchanged",
        "node-2": "planned",
        "node-3": "unchanged",
    }
    answer = site.json("init")
    assert answer.states("bootstrap") == {"node-1": "unchanged", "node-2": "done", "node-3": "unchanged"}
    assert (
        site.inside("node-2", "stat -c %a /etc/coupler/pki/etcd/peer.key /etc/coupler/pki/etcd/client.crt")
        == "600\n644"
    )
    assert list(changes(before, site.everywhere(STATE_OF_NODE))) == ["node-2"]


def test_two_commands_at_once_do_not_meet(site: Site) -> None:
    with (site.folder / ".coupler" / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answer = site.cluster("init")
        assert answer.exit_code == 1
        assert "another `cluster` command is at work on this cluster" in answer.stderr
        assert site.cluster("status").exit_code == 0
