"""The script that tells the kubelet of its machine, run where /run is empty but for what a test puts there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "cloud-config" / "scripts" / "coupler-kubelet-environment"
RESOLVED = "/run/systemd/resolve/resolv.conf"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a mount namespace")


@pytest.mark.parametrize(
    ("prepare", "resolver"),
    [
        (f"echo nameserver 10.0.0.2 > {RESOLVED}", RESOLVED),
        (f": > {RESOLVED}", "/etc/resolv.conf"),
        ("true", "/etc/resolv.conf"),
    ],
    ids=["resolved", "resolved-without-servers", "no-resolved"],
)
def test_pods_get_the_servers_behind_the_local_resolver(prepare: str, resolver: str) -> None:
    steps = f"mount -t tmpfs none /run; mkdir -p {Path(RESOLVED).parent}; {prepare}; sh {SCRIPT}"
    steps += "; cat /run/coupler/kubelet.env"
    done = subprocess.run(["unshare", "--mount", "sh", "-ec", steps], capture_output=True, text=True, check=True)
    assert done.stdout == f"COUPLER_RESOLV_CONF={resolver}\n"
