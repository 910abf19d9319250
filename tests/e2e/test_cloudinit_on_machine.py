"""The applier as the program it is on a lab machine: real systemd, users, links and files."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from coupler.lab import Lab

pytestmark = pytest.mark.lab

_NODE = "node-1"
_DOCUMENT = """#cloud-config
hostname: "stilt.example.net"
users:
  - name: "heron"
    groups: ["sudo"]
    ssh_authorized_keys: ["ssh-ed25519 AAAAheron heron@fen"]
ssh_authorized_keys: ["ssh-ed25519 AAAAcore core@fen"]
manage_etc_hosts: "localhost"
write_files:
  - path: "/etc/fen/notes"
    owner: "heron:heron"
    permissions: "0600"
    content: "address $private_ipv4\\n"
coreos:
  flannel: {interface: "eth0"}
  units:
    - name: "good.service"
      enable: true
      command: "start"
      content: |
        [Service]
        Type=oneshot
        RemainAfterExit=yes
        ExecStart=/bin/true
        [Install]
        WantedBy=multi-user.target
      drop_ins:
        - name: "10-fen.conf"
          content: |
            [Service]
            Environment=FEN=1
    - name: "limp.service"
      command: "start"
      content: |
        [Service]
        Type=oneshot
        ExecStart=/bin/false
    - name: "apt-daily.timer"
      mask: true
"""


@pytest.fixture(scope="module")
def lab(make_lab: Callable[[], Lab]) -> Lab:
    lab = make_lab()
    lab.up(lab.plan(1))
    return lab


def _apply(lab: Lab, document: str) -> subprocess.CompletedProcess[bytes]:
    script = "cat > /root/user-data && COREOS_PRIVATE_IPV4=10.21.4.7 coreos-cloudinit --from-file=/root/user-data"
    return subprocess.run(
        lab.command(_NODE, ["sh", "-c", script]), input=document.encode(), capture_output=True, check=False
    )


def _say(lab: Lab, script: str) -> str:
    return lab.exec(_NODE, ["sh", "-c", script]).stdout.strip()


def test_document_becomes_the_state_of_the_machine(lab: Lab) -> None:
    done = _apply(lab, _DOCUMENT)
    assert done.returncode == 0, done.stderr.decode()
    assert 'Result of "start" on "limp.service": failed' in done.stderr.decode()
    assert _say(lab, "hostname; cat /etc/hosts") == "stilt\n127.0.0.1 stilt"
    assert _say(lab, "stat -c '%U:%G %a' /etc/fen/notes; cat /etc/fen/notes") == "heron:heron 600\naddress 10.21.4.7"
    assert _say(lab, "cat /etc/environment") == "COREOS_PRIVATE_IPV4=10.21.4.7"
    assert _say(lab, "cat /run/flannel/options.env") == "FLANNELD_IFACE=eth0"
    assert _say(lab, "systemctl is-active good limp; systemctl is-enabled good apt-daily.timer") == (
        "active\nfailed\nenabled\nmasked"
    )
    assert _say(lab, "systemctl show -P Environment good.service") == "FEN=1"
    assert "AAAAheron" in _say(lab, "cat ~heron/.ssh/authorized_keys")
    assert {"AAAAcore", lab.public_key.split()[1]} <= set(_say(lab, "cat ~core/.ssh/authorized_keys").split())
    assert "heron" in _say(lab, "getent group sudo")


def test_second_run_changes_no_file(lab: Lab) -> None:
    listing = "find /etc /home /run/flannel -type f -exec sha256sum {} + | sort"
    _apply(lab, _DOCUMENT)
    before = _say(lab, listing)
    assert _apply(lab, _DOCUMENT).returncode == 0
    assert _say(lab, listing) == before


@pytest.mark.parametrize(
    ("unit", "message"),
    [
        ("{name: nowhere.service, command: start}", "Unit nowhere.service not found."),
        ("{name: alpha, command: start}", "Unit name alpha is not valid."),
        ("{name: apt-daily.timer, mask: true, command: start}", "Unit apt-daily.timer is masked."),
        ("{name: nowhere.service, enable: true}", "Unit file nowhere.service does not exist."),
    ],
)
def test_call_that_systemd_refuses_ends_the_run(lab: Lab, unit: str, message: str) -> None:
    done = _apply(lab, f"#cloud-config\ncoreos: {{units: [{unit}, {{name: good.service, command: stop}}]}}\n")
    assert done.returncode == 1
    assert f"error applying cloud-config: {message}" in done.stderr.decode()
    assert _say(lab, "systemctl is-active good") == "active"


def test_script_runs_as_a_transient_unit(lab: Lab) -> None:
    assert _apply(lab, "#!/bin/sh\necho began > /run/marker\n").returncode == 0
    assert _say(lab, "for _ in 1 2 3 4 5 6 7 8 9; do cat /run/marker && break; sleep 0.1; done") == "began"
