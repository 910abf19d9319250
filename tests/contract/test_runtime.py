"""coupler-runtime, run where /run and /opt are empty but for what a test puts there, and what containerd knows of it.

`fixtures/containerd/VERSION.toml` is what that version prints for `containerd config default`: every key that it has.
"""

from __future__ import annotations

import os
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "cloud-config" / "scripts" / "coupler-runtime"
DEFAULTS = ROOT / "tests" / "fixtures" / "containerd"
PAUSE = "registry.example.org/pause:3.10"
OURS = "/opt/bin/containerd"

CRI_1 = "io.containerd.grpc.v1.cri"
IMAGES_2, RUNTIME_2 = "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"

SAYS = {
    "1.6.20": "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3",
    "2.0.2": "containerd github.com/containerd/containerd/v2 v2.0.2 c507a0257ea6462fbd6f5ba4f5c74facb04021f4",
    "2.1.5": "containerd github.com/containerd/containerd/v2 v2.1.5 fcd43222d6b07379a4be9786bda52438f0dd16a1",
}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a mount namespace")


def run(prepare: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script in a world where `prepare` has put the programs, and print what it wrote."""
    ours = "mount -t tmpfs none /run; mount -t tmpfs none /opt; mkdir /opt/bin"
    steps = f"{ours}; {prepare}; sh {SCRIPT} {' '.join(arguments)}; cat /run/coupler/*"
    return subprocess.run(["unshare", "--mount", "sh", "-ec", steps], capture_output=True, text=True, check=False)


def program(path: str, says: str) -> str:
    return f"printf '#!/bin/sh\\necho %s\\n' '{says}' > {path}; chmod +x {path}"


def configuration(version: str) -> dict[str, Any]:
    """Return what the script writes for a version of containerd."""
    steps = f"{program(OURS, SAYS[version])}"
    done = run(steps, PAUSE, OURS)
    assert done.returncode == 0, done.stderr
    text = done.stdout.partition("version =")[1:]
    return tomllib.loads("".join(text).partition("COUPLER_")[0])


def keys(table: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from keys(value, (*path, key))
        else:
            yield (*path, key)


@pytest.mark.parametrize("version", ["1.6.20", "2.1.5"])
def test_the_installed_version_knows_every_key(version: str) -> None:
    written = set(keys(configuration(version)))
    known = set(keys(tomllib.loads((DEFAULTS / f"{version}.toml").read_text())))
    assert len(written) > 6
    assert written - known == set()


def test_containerd_1_reads_format_2() -> None:
    found = configuration("1.6.20")
    cri = found["plugins"][CRI_1]
    assert (found["version"], cri["sandbox_image"], cri["cni"]["bin_dir"]) == (2, PAUSE, "/opt/cni/bin")
    assert set(cri["containerd"]["runtimes"]["runc"]["options"]) == {"SystemdCgroup"}


@pytest.mark.parametrize(
    ("version", "plugins"),
    [("2.0.2", {"bin_dir": "/opt/cni/bin"}), ("2.1.5", {"bin_dirs": ["/opt/cni/bin"]})],
)
def test_containerd_2_reads_format_3(version: str, plugins: dict[str, Any]) -> None:
    """`bin_dirs` came with 2.1, whose docs/cri/config.md calls `bin_dir` deprecated."""
    found = configuration(version)
    assert found["version"] == 3
    assert found["plugins"][IMAGES_2]["pinned_images"] == {"sandbox": PAUSE}
    runtime = found["plugins"][RUNTIME_2]
    assert runtime["cni"] == {**plugins, "conf_dir": "/etc/cni/net.d"}
    assert set(runtime["containerd"]["runtimes"]["runc"]["options"]) == {"SystemdCgroup"}


def test_the_systems_own_comes_first_unless_cluster_yaml_brings_one() -> None:
    both = (
        "mkdir /run/upper /run/work; "
        "mount -t overlay none /usr/bin -o lowerdir=/usr/bin,upperdir=/run/upper,workdir=/run/work"
        f"; {program('/usr/bin/containerd', SAYS['1.6.20'])}; {program(OURS, SAYS['2.1.5'])}"
    )
    assert "COUPLER_CONTAINERD=/usr/bin/containerd\n" in run(both, PAUSE).stdout
    assert f"COUPLER_CONTAINERD={OURS}\n" in run(both, PAUSE, OURS).stdout


def test_a_program_that_is_not_there_or_says_no_version() -> None:
    gone = run("true", PAUSE, OURS)
    assert gone.returncode == 1
    assert gone.stderr == f"this machine has no {OURS}: give artifacts.containerd in cluster.yaml\n"
    odd = run(program(OURS, "usage: containerd"), PAUSE, OURS)
    assert odd.returncode == 1
    assert f"{OURS} --version does not say which version it is" in odd.stderr


def test_what_is_the_same_is_not_written_again() -> None:
    look = "stat -c '%n %i %Z' /run/coupler/*"
    done = run(
        f"{program(OURS, SAYS['2.1.5'])}; sh {SCRIPT} {PAUSE} {OURS}; {look}; sleep 1.1", PAUSE, OURS, f"; {look}"
    )
    assert done.returncode == 0, done.stderr
    seen = [line for line in done.stdout.splitlines() if line.startswith("/run/coupler/")]
    assert len(seen) == 4
    assert seen[:2] == seen[2:]
