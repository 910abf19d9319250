"""Boot from git on a real machine: whatever is published, whatever breaks, the node ends on one whole document."""

from __future__ import annotations

import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from coupler.mirror import fileserver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Site

pytestmark = pytest.mark.lab

NODE = "node-1"
ROUNDS = 10
"""Power cuts."""

EVERYTHING = """
find /etc/coupler /etc/systemd/system /etc/motd /etc/brought* /opt -xdev ! -type d -printf '%p %m %u %l ' \\
    \\( -type f -exec sha256sum '{}' \\; -o -printf '\\n' \\) 2>/dev/null | sort
find /etc/systemd/system -type d | sort
"""
"""What documents bring: every file with its mode, owner and content, every link, every folder of drop-ins."""


@pytest.fixture(scope="module")
def site(make_cluster: Callable[[int, str], Site]) -> Site:
    return make_cluster(1, "6s")


@pytest.fixture(autouse=True)
def afresh(site: Site) -> Iterator[None]:
    """Leave the node, the branch and cluster.yaml as they were."""
    with site.put_back():
        yield
    assert site.inside(NODE, "ls /var/lib/coupler") == (
        "allowed_signers\nartifacts\nboot-stub.applied\nboot-stub.yaml\ndocuments\nlast-good.yaml\nleft\nowned\n"
        "repository.git"
    )


def pull(site: Site) -> dict[str, Any]:
    """Let the node pull; return its report."""
    site.lab.exec(NODE, ["systemctl", "start", "coupler-pull"])
    report: dict[str, Any] = json.loads(site.inside(NODE, "cat /run/coupler/status.json"))
    return report


def commit(site: Site, *options: str, parent: str = "main", message: str = "by hand", **files: str) -> str:
    """Put a commit on the branch, past `cluster`, signed by the operator; return it. Underscores in names are dots."""
    repository = ["git", "-C", str(site.lab.repository_path)]
    index = {**os.environ, "GIT_INDEX_FILE": str(site.folder / "index")}

    def git(*arguments: str, text: str | None = None) -> str:
        done = subprocess.run(
            [*repository, *arguments], input=text, env=index, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    git("read-tree", parent)
    for name, text in files.items():
        blob = git("hash-object", "-w", "--stdin", text=text)
        git("update-index", "--add", "--cacheinfo", f"100644,{blob},{name.replace('__', '-').replace('_', '.')}")
    identity = ["-c", "user.name=hand", "-c", "user.email=hand@example.org", "-c", "gpg.format=ssh"]
    signed = [*identity, "-c", f"user.signingkey={site.lab.private_key}", *options]
    new = git(*signed, "commit-tree", git("write-tree"), "-p", parent, "-S", "-m", message)
    git("update-ref", "refs/heads/main", new)
    return new


# A document that does not do


WORSE = """\
  write_files:
    - path: /etc/brought
      content: new
    - path: /etc/motd
      permissions: "0600"
      content: replaced
  coreos:
    units:
      - name: brought.service
        enable: true
        command: start
        content: |
          [Service]
          Type=oneshot
          RemainAfterExit=yes
          ExecStart=/bin/true
          [Install]
          WantedBy=multi-user.target
      - name: broken.service
        command: start
        content: |
          [Service]
          ExecStart=/bin/sh -c 'sleep 0.2; exit 1'
          Restart=always
          RestartSec=1
"""


def test_a_document_that_makes_a_unit_fail_is_undone_with_all_that_only_it_brought(site: Site) -> None:
    site.inside(NODE, "echo before > /etc/motd; chmod 0640 /etc/motd")
    good, before = site.published, site.inside(NODE, EVERYTHING)
    etcd = site.inside(NODE, "systemctl show -P InvocationID etcd")
    site.extra(WORSE)
    answer = site.json("init")
    assert answer.exit_code == 5
    assert re.search(r"not healthy within 6 s: broken\.service ", answer.failed[NODE])
    assert site.inside(NODE, EVERYTHING) == before
    assert site.inside(NODE, "cat /etc/motd; stat -c %a /etc/motd") == "before\n640"
    for unit in ("brought.service", "broken.service"):
        assert site.inside(NODE, f"systemctl show -P LoadState,ActiveState {unit}").split() == ["not-found", "inactive"]
    assert site.inside(NODE, "systemctl show -P InvocationID etcd") == etcd
    assert site.inside(
        NODE, "cat /run/coupler/applied; basename $(readlink /var/lib/coupler/last-good.yaml) .yaml"
    ) == (f"{good}\n{good}")
    status = site.cluster("status")
    assert status.exit_code == 5
    assert re.search(r"^node-1: is not at the published commit: .*not healthy within 6 s: broken", status.stdout, re.M)
    # It is not tried again by itself: units are not to be shaken at every look.
    report = pull(site)
    assert (report["result"], report["applied"]) == ("kept", good)
    assert "was tried before: not healthy" in report["reason"]
    site.inside(NODE, "rm /etc/motd")


def test_an_etcd_that_does_not_start_with_its_new_flags_is_back_with_the_old_ones(site: Site) -> None:
    before = site.inside(NODE, EVERYTHING)
    site.edit("  election_timeout: 250\n", '  election_timeout: 250\n  extra_args: {no-such-flag: "1"}\n')
    answer = site.json("init")
    assert answer.exit_code == 5
    assert "etcd.service" in answer.failed[NODE]
    assert site.inside(NODE, EVERYTHING) == before
    patiently = "for _ in $(seq 50); do etcdctl endpoint health && exit; sleep 0.2; done; exit 1"
    site.inside(NODE, f". /etc/profile.d/coupler.sh; ({patiently}) 2>&1")


def test_a_unit_that_was_not_well_before_holds_nothing_up(site: Site) -> None:
    program = "/bin/sh -c 'test ! -e /run/broken && exec sleep infinity'"
    site.extra(
        "  coreos:\n    units:\n      - name: shaky.service\n        command: start\n        content: |\n"
        f"          [Service]\n          ExecStart={program}\n          Restart=always\n          RestartSec=1\n",
    )
    assert site.cluster("init").exit_code == 0
    site.inside(NODE, "touch /run/broken; systemctl restart shaky")
    site.edit("election_timeout: 250", "election_timeout: 270")
    answer = site.json("init")
    assert answer.exit_code == 0, answer.stderr
    assert site.inside(NODE, "systemctl show -P ActiveState shaky") != "active"


def test_what_a_document_does_not_have_any_more_goes(site: Site) -> None:
    before = site.inside(NODE, EVERYTHING)
    text = site.file.read_text()
    site.extra(WORSE[: WORSE.index("      - name: broken")])
    site.inside(NODE, "echo mine > /etc/motd")
    assert site.cluster("init").exit_code == 0
    assert site.inside(NODE, "cat /etc/brought; echo; systemctl is-active brought; systemctl is-enabled brought") == (
        "new\nactive\nenabled"
    )
    site.file.write_text(text)
    assert site.cluster("init").exit_code == 0
    assert site.inside(NODE, "systemctl show -P LoadState,ActiveState brought").split() == ["not-found", "inactive"]
    # The file that was there before is not ours to take away.
    assert site.inside(NODE, "cat /etc/motd") == "replaced"
    site.inside(NODE, "rm /etc/motd")
    assert site.inside(NODE, EVERYTHING) == before


def test_a_full_disk_during_apply_leaves_what_was(site: Site) -> None:
    site.inside(NODE, "mkdir -p /srv/small && mount -t tmpfs -o size=64k tmpfs /srv/small")
    try:
        before = site.inside(NODE, EVERYTHING)
        site.extra(
            "  write_files:\n    - path: /etc/brought\n      content: new\n"
            f"    - path: /srv/small/large\n      content: {'x' * 100_000}\n",
        )
        answer = site.json("init")
        assert answer.exit_code == 5
        assert "No space left on device" in answer.failed[NODE] or "no space left on device" in answer.failed[NODE]
        assert site.inside(NODE, EVERYTHING) == before
        assert site.inside(NODE, "ls -A /srv/small") == ""
    finally:
        site.inside(NODE, "umount /srv/small")
    assert site.json("init").exit_code == 0
    assert site.inside(NODE, "stat -c %s /srv/small/large") == "100000"


def test_without_space_to_write_down_what_was_nothing_is_tried(site: Site) -> None:
    before = site.inside(NODE, EVERYTHING)
    good = site.published
    site.inside(NODE, "mkdir /var/lib/coupler/undo.new && mount -t tmpfs -o size=4k tmpfs /var/lib/coupler/undo.new")
    try:
        site.extra("  write_files:\n    - path: /etc/brought\n      content: new\n")
        answer = site.json("init")
        assert answer.exit_code == 5
        assert "cannot be written down" in answer.failed[NODE]
        assert site.inside(NODE, EVERYTHING) == before
        assert site.inside(NODE, "cat /run/coupler/applied") == good
    finally:
        site.inside(NODE, "umount /var/lib/coupler/undo.new; rmdir /var/lib/coupler/undo.new")


def test_a_document_that_is_cut_off_is_refused_though_it_is_valid(site: Site) -> None:
    good, document = site.published, site.git("show", "main:cloud-config.yaml")
    bad = commit(site, cloud__config_yaml=document[: document.index("\n    - name: etcd.service")] + "\n")
    report = pull(site)
    assert (report["result"], report["applied"], report["fetched"]) == ("kept", good, bad)
    assert "is cut off" in report["reason"]


# Whose commits count, and which


def test_an_older_commit_is_refused_unless_a_signed_one_says_what_it_replaces(site: Site) -> None:
    old = site.published
    old_document = site.git("show", "main:cloud-config.yaml")
    site.edit("election_timeout: 250", "election_timeout: 260")
    assert site.cluster("init").exit_code == 0
    good = site.published
    site.git("update-ref", "refs/heads/main", old)
    report = pull(site)
    assert (report["result"], report["applied"], report["fetched"]) == ("kept", good, old)
    assert f"does not follow {good}" in report["reason"]
    # Another history with a good signature is no better, whatever its dates say.
    fork = commit(site, parent=old, message="fork", cloud__config_yaml=old_document + "#\n# End of the document\n")
    assert (pull(site)["result"], pull(site)["fetched"]) == ("kept", fork)
    wrong = commit(site, parent=old, message=f"back\n\nCoupler-Replaces: {old}")
    assert (pull(site)["result"], pull(site)["fetched"]) == ("kept", wrong)
    right = commit(site, parent=old, message=f"back\n\nCoupler-Replaces: {good}")
    report = pull(site)
    assert (report["result"], report["applied"]) == ("applied", right)


def test_a_signer_who_was_removed_is_one_no_more_even_after_old_user_data(site: Site, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "leaver")], check=True)
    line = (tmp_path / "leaver.pub").read_text().split()
    without = site.file.read_text()
    site.edit("  allowed_signers:\n", f"  allowed_signers:\n    - leaver {line[0]} {line[1]}\n")
    assert site.cluster("init").exit_code == 0
    site.inside(NODE, "cp /var/lib/coupler/boot-stub.yaml /root/old-user-data")
    by_leaver = ("-c", f"user.signingkey={tmp_path / 'leaver'}")
    assert pull(site)["applied"] != commit(site, *by_leaver)
    assert pull(site)["result"] == "applied"
    site.file.write_text(without)
    assert site.cluster("init").exit_code == 0
    good = site.published
    # As a machine does at every boot whose user-data nobody has changed.
    site.inside(NODE, "coreos-cloudinit --from-file=/root/old-user-data; grep leaver /etc/coupler/allowed_signers")
    commit(site, *by_leaver)
    report = pull(site)
    assert (report["result"], report["applied"]) == ("kept", good)
    assert "no signature of an allowed signer" in report["reason"]


def test_dates_of_commits_do_not_matter(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for date in ("2090-01-01T00:00:00Z", "1990-01-01T00:00:00Z"):
        monkeypatch.setenv("GIT_COMMITTER_DATE", date)
        new = commit(site, message=date)
        assert (pull(site)["result"], pull(site)["applied"]) == ("applied", new) or pull(site)["applied"] == new


@pytest.mark.parametrize("off", ["-20y", "+20y"])
def test_a_node_whose_clock_is_far_off_takes_what_is_new(site: Site, off: str) -> None:
    [library] = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
    with library.open("rb") as stream:
        subprocess.run(site.lab.command(NODE, ["sh", "-c", "cat > /opt/faketime.so"]), stdin=stream, check=True)
    drop_in = "/run/systemd/system/coupler-pull.service.d"
    lines = f'[Service]\\nEnvironment=LD_PRELOAD=/opt/faketime.so "FAKETIME={off}"\\n'
    site.inside(NODE, f"mkdir -p {drop_in}; printf '{lines}' > {drop_in}/clock.conf; systemctl daemon-reload")
    try:
        new = commit(site)
        report = pull(site)
        assert (report["result"], report["applied"]) == ("applied", new)
        years = int(report["time"][:4]) - time.gmtime().tm_year
        assert abs(years - int(off[:-1])) <= 1, "the clock was off"
        assert pull(site)["result"] == "unchanged"
    finally:
        site.inside(NODE, f"rm -r {drop_in} /opt/faketime.so; systemctl daemon-reload")


# A repository that does not do


@contextmanager
def server(site: Site, behave: Callable[[socket.socket], None]) -> Iterator[None]:
    """Stand in for the git server."""
    site.lab.stop_git()
    listener = socket.create_server((str(site.lab.network.host), 9418))
    held = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            held.append(connection)
            behave(connection)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in held:
            connection.close()
        site.lab.start_git()


def garbage(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n\x00\xff<html>" + os.urandom(4096))
    connection.close()


def silence(_: socket.socket) -> None:
    """Accept, and say nothing."""


@pytest.mark.parametrize("behave", [garbage, silence], ids=["garbage", "silence"])
def test_a_server_that_talks_nonsense_or_nothing_changes_nothing(
    site: Site, behave: Callable[[socket.socket], None]
) -> None:
    site.inside(NODE, "sed -i 's/^look_seconds=20/look_seconds=1/' /opt/bin/coupler-pull")
    good = site.published
    with server(site, behave):
        report = pull(site)
    assert (report["result"], report["applied"]) == ("kept", good)
    assert "cannot fetch main" in report["reason"]
    assert site.inside(NODE, "systemctl is-failed coupler-pull || true") == "inactive"
    assert pull(site)["result"] == "unchanged"
    site.inside(NODE, "sed -i 's/^look_seconds=1/look_seconds=20/' /opt/bin/coupler-pull")


def test_a_damaged_copy_of_the_repository_is_had_anew(site: Site) -> None:
    site.inside(NODE, "find /var/lib/coupler/repository.git/objects -type f -exec sh -c ': > $1' - '{}' ';'")
    new = commit(site)
    assert (pull(site)["result"], pull(site)["applied"]) == ("applied", new) or pull(site)["applied"] == new


SERVERS = {
    "plain files": Path(fileserver.__file__),
    "git server": Path(__file__).parent / "smart_http.py",
}
PORT = 8090


@pytest.mark.parametrize("kind", SERVERS)
def test_over_http_a_look_at_nothing_new_is_one_request(site: Site, tmp_path: Path, kind: str) -> None:
    host, log = str(site.lab.network.host), tmp_path / "log"
    copy = tmp_path / "files" / "copy.git"
    subprocess.run(["git", "clone", "-q", "--mirror", str(site.lab.repository_path), str(copy)], check=True)

    def update() -> None:
        subprocess.run(["git", "-C", str(copy), "remote", "update"], check=True, capture_output=True)
        subprocess.run(["git", "-C", str(copy), "update-server-info"], check=True)

    def follow() -> None:
        url = f"http://{host}:{PORT}/copy.git"
        site.inside(NODE, f"sed -i 's|^REPOSITORY=.*|REPOSITORY={url}|' /etc/coupler/pull.conf")

    update()
    configuration = site.inside(NODE, "cat /etc/coupler/pull.conf")
    with log.open("w") as stream:
        argv = [sys.executable, "-IS", str(SERVERS[kind]), host, str(PORT), str(tmp_path / "files")]
        web = subprocess.Popen(argv, stderr=stream)
    try:
        look = f"curl -sf http://{host}:{PORT}/copy.git/info/refs > /dev/null"
        site.inside(NODE, f"for _ in $(seq 100); do {look} && exit; sleep 0.1; done; exit 1")
        follow()
        assert pull(site)["result"] == "unchanged"
        # From nothing, as a new machine.
        site.inside(NODE, "rm -r /run/coupler/applied /var/lib/coupler/last-good.yaml /var/lib/coupler/repository.git")
        report = pull(site)
        assert (report["result"], report["applied"]) == ("applied", site.published), report
        shallow = site.lab.exec(NODE, ["test", "-s", "/var/lib/coupler/repository.git/shallow"]).returncode == 0
        assert shallow == (kind == "git server")
        new = commit(site)
        update()
        follow()
        report = pull(site)
        assert (report["result"], report["applied"]) == ("applied", new), report
        follow()
        log.write_text("")
        assert pull(site)["result"] == "unchanged"
        requests = re.findall(r'"(?:GET|POST) (\S+)', log.read_text())
        assert requests == ["/copy.git/info/refs?service=git-upload-pack"]
    finally:
        web.kill()
        web.wait()
        site.inside(NODE, f"cat > /etc/coupler/pull.conf <<'END'\n{configuration}\nEND")


# Power cuts


def letters(letter: str) -> str:
    """Return a fragment that writes one letter into twenty files and a unit."""
    files = "".join(f"    - path: /etc/brought.{number}\n      content: {letter}\n" for number in range(20))
    only = f"    - path: /etc/brought.only-{letter}\n      content: {letter}\n"
    return (
        f"  write_files:\n{files}{only}  coreos:\n    units:\n      - name: letter.service\n        command: start\n"
        f"        content: |\n          [Service]\n          Type=oneshot\n          RemainAfterExit=yes\n"
        f"          ExecStart=/bin/echo {letter}\n"
    )


def test_power_cuts_at_random_moments_leave_one_whole_document(site: Site) -> None:
    documents: dict[str, str] = {}
    text = site.file.read_text()
    for letter in "ab":
        site.file.write_text(text)
        site.extra(letters(letter))
        documents[letter] = site.cluster("render").stdout
    commit(site, cloud__config_yaml=documents["a"])
    assert pull(site)["result"] == "applied"
    moments = random.Random(2026)
    seen = set()
    for number in range(ROUNDS):
        letter = "ba"[number % 2]
        new = commit(site, cloud__config_yaml=documents[letter])
        before = site.inside(NODE, "cat /etc/brought.*")
        assert len(set(before.split())) <= 1, before
        subprocess.run(site.lab.command(NODE, ["systemctl", "start", "--no-block", "coupler-pull"]), check=True)
        time.sleep(moments.uniform(0, 2.5))
        offline = number % 3 == 2
        if offline:
            site.lab.stop_git()
        site.lab.kill(NODE)
        site.lab.start(NODE)
        site.inside(
            NODE,
            "for _ in $(seq 300); do [ -e /run/coupler/status.json ] && "
            "[ $(systemctl show -P ActiveState coupler-pull) = inactive ] && exit; sleep 0.1; done; exit 1",
        )
        if offline:
            site.lab.start_git()
        now = site.inside(
            NODE, "cd /etc; for file in brought.*; do echo $(cat $file) ${file#brought.}; done"
        ).splitlines()
        [here] = {line.split()[0] for line in now}
        assert sorted(line.split()[1] for line in now) == sorted([*map(str, range(20)), f"only-{here}"])
        assert f"ExecStart=/bin/echo {here}" in site.inside(NODE, "cat /etc/systemd/system/letter.service")
        applied = site.inside(NODE, "cat /run/coupler/applied")
        assert site.git("show", f"{applied}:cloud-config.yaml") == documents[here].rstrip("\n")
        assert offline or applied == new
        assert site.lab.exec(NODE, ["ls", "/var/lib/coupler/undo"]).returncode != 0
        assert pull(site)["applied"] == new
        seen.add((here == letter, offline))
    assert (True, False) in seen
