"""Bad days of single hosts: six of eight machines have each something else; the other two must not suffer."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Answer, Site

pytestmark = pytest.mark.lab

BAD = {
    "port in use": "node-3",
    "wrong ssh key": "node-4",
    "changed host key": "node-5",
    "full disk": "node-6",
    "address not in the table": "node-7",
    "disk that fills up": "node-8",
}

# Anything that ran it would be seen, and would get nothing but a failure from it.
FAKE_PYTHON = """
mount -t tmpfs -o mode=0755 tmpfs /usr/local/bin
printf '#!/bin/sh\\necho "$0 $*" >> /tmp/python-was-run\\nexit 99\\n' > /usr/local/bin/python3
chmod 0755 /usr/local/bin/python3
ln -s python3 /usr/local/bin/python
"""

BREAK = {
    "port in use": "systemd-run --quiet --unit=squatter systemd-socket-activate --accept --listen=2379 cat; "
    "until ss -Hltn | grep -q :2379; do sleep 0.1; done",
    "wrong ssh key": "cd ~core/.ssh && mv authorized_keys kept && ssh-keygen -q -t ed25519 -N '' -f /root/other && "
    "install -m 0600 -o core -g core /root/other.pub authorized_keys",
    "changed host key": "rm /etc/ssh/ssh_host_ed25519_key* && ssh-keygen -A && systemctl restart ssh",
    "full disk": "mount -t tmpfs -o size=64k tmpfs /opt",
    "disk that fills up": "mkdir -p /var/lib/coupler && mount -t tmpfs -o size=4k tmpfs /var/lib/coupler",
}

MEND = {
    "port in use": "systemctl stop squatter",
    "wrong ssh key": "cd ~core/.ssh && mv kept authorized_keys",
    "full disk": "umount /opt",
    "disk that fills up": "umount /var/lib/coupler",
}


@dataclass(frozen=True)
class Trouble:
    """A run on hosts in trouble; and, when their troubles are mended as its answer advises, another."""

    site: Site
    text: Answer
    first: Answer
    second: Answer


@pytest.fixture(scope="module")
def trouble(make_site: Callable[[int], Site]) -> Trouble:
    site = make_site(8)
    site.inside("node-1", FAKE_PYTHON)
    for what, script in BREAK.items():
        site.inside(BAD[what], script)
    address = let_another_address_be_in_the_table(site)
    text = site.cluster("init")
    first = site.json("init")
    for what, script in MEND.items():
        site.inside(BAD[what], script)
    site.inside("node-7", f"ip address add {address}/24 dev host0")
    follow_advice_on_the_host_key(site, first)
    return Trouble(site, text, first, site.json("init"))


def let_another_address_be_in_the_table(site: Site) -> str:
    """Let cluster.yaml say another address of node-7 than the machine has. Return that address."""
    row = re.search(r'  - name: node-7\n    address: (\S+)\n    mac: "\S+"\n', site.file.read_text())
    assert row
    address = re.sub(r"\d+$", "77", row[1])
    site.edit(row[0], f"  - name: node-7\n    address: {address}\n    ssh: {{address: {row[1]}}}\n")
    return address


def advice(answer: Answer, host: str) -> str:
    [step] = [entry["next_step"] for entry in answer.data["failed"] if entry["host"] == host]
    return str(step)


def follow_advice_on_the_host_key(site: Site, answer: Answer) -> None:
    """Run the command that forgets the old key, then the one that remembers the new one, as they are printed."""
    for expected in ("ssh-keygen -R", "ssh-keyscan"):
        command = advice(answer, "node-5").partition(": ")[2]
        assert command.startswith(expected)
        subprocess.run(["sh", "-c", command], check=True, capture_output=True)
        answer = site.json("init", "--limit", "node-5", "--dry-run")


def test_hosts_without_trouble_come_up(trouble: Trouble) -> None:
    assert trouble.text.exit_code == 5
    first = trouble.text.stdout.splitlines()[0]
    assert re.search(r": 2 of 8 nodes healthy at commit \w{12}, etcd has 2 healthy members$", first)
    assert sorted(trouble.first.failed) == sorted(BAD.values())
    assert trouble.first.states("pull") == {"node-1": "unchanged", "node-2": "unchanged"}


@pytest.mark.parametrize(
    ("what", "cause", "next_step"),
    [
        ("port in use", r"port 2379, which etcd needs, is in use by systemd-", r"stop it; .*`systemctl status \d+`"),
        ("wrong ssh key", r"core@\S+:22 does not let us in: the key \S+ was not accepted", r"authorized_keys"),
        ("changed host key", r"the host key of \S+ has changed: known is SHA256:\S+, presented is", r"ssh-keygen"),
        ("full disk", r"/opt has 0 MiB free, of 256 MiB needed", r"free space on /opt"),
        ("address not in the table", r"its addresses are \S+17, and cluster.yaml says \S+77", r"correct the address"),
        ("disk that fills up", r"cannot write /var/lib/coupler/boot-stub.yaml: .*No space left on device", r"df -h"),
    ],
    ids=BAD,
)  # fmt: skip
def test_each_trouble_is_told_with_host_cause_and_what_to_do(
    trouble: Trouble, what: str, cause: str, next_step: str
) -> None:
    node = BAD[what]
    assert re.search(cause, trouble.first.failed[node])
    assert re.search(next_step, advice(trouble.first, node))
    told = re.search(rf"^  failed: {node}: (.*)\n    next: (.*)$", trouble.text.stdout, re.MULTILINE)
    assert told, trouble.text.stdout
    assert re.search(cause, told[1])
    assert re.search(next_step, told[2])


def test_hosts_that_fail_preflight_are_left_as_they_were(trouble: Trouble) -> None:
    in_step = {step["title"]: {host["host"] for host in step["hosts"]} for step in trouble.first.data["steps"]}
    assert in_step["bootstrap"] == {"node-1", "node-2", "node-8"}
    assert in_step["pull"] == {"node-1", "node-2"}


def test_failures_of_hosts_show_no_secret(trouble: Trouble) -> None:
    assert "PRIVATE KEY" not in trouble.text.stderr + trouble.text.stdout + trouble.first.stdout
    assert not re.search(r"[A-Za-z0-9+/]{64}", trouble.text.stderr + trouble.text.stdout)


def test_python_on_a_node_is_never_run_and_none_is_needed(trouble: Trouble) -> None:
    over_ssh = ["sh", "-c", "command -v python3; test ! -e /tmp/python-was-run"]
    with_python = subprocess.run(
        trouble.site.lab.ssh_command("node-1", over_ssh[2:]), capture_output=True, text=True, check=True
    )
    assert with_python.stdout == "/usr/local/bin/python3\n"
    assert trouble.site.lab.exec("node-2", ["sh", "-c", "command -v python3 python"]).stdout == ""


def test_mended_hosts_complete_and_the_others_are_unchanged(trouble: Trouble) -> None:
    assert trouble.second.exit_code == 0, trouble.second.stderr
    states = trouble.second.states("bootstrap")
    assert {node: states[node] for node in ("node-1", "node-2")} == {"node-1": "unchanged", "node-2": "unchanged"}
    assert {states[node] for node in BAD.values()} == {"done"}
    assert set(trouble.second.states("health").values()) == {"ok"}
    status = trouble.site.json("status")
    assert status.exit_code == 0
    assert sum(bool(node["etcd"]) for node in status.data["nodes"]) == 3
