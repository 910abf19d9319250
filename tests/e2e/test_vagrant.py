"""`vagrant validate` and `vagrant status` with the Vagrantfile: no virtual machine, no libvirtd, no network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest

pytestmark = [
    pytest.mark.vagrant,
    pytest.mark.skipif(
        shutil.which("vagrant") is None, reason="vagrant is not installed: apt-get install vagrant-libvirt"
    ),
]

CHECKOUT = Path(__file__).resolve().parents[2]
CLUSTER = """\
version: 1
name: demo
os: {os}
git: {{repository: "git://192.168.56.1/demo.git", push: ./demo.git}}
nodes:
  - {{name: "node-[1-{nodes}]", address: 192.168.56.11-192.168.56.{last}, roles: [control, worker]}}
"""
ONE_WITH_MAC = """\
version: 1
name: demo
git: {repository: "git://192.168.56.1/demo.git", push: ./demo.git}
nodes:
  - {name: node-1, address: 192.168.56.11, mac: "52:54:00:c0:de:01", roles: [control, worker]}
"""


class Vagrant(Protocol):
    def __call__(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder, which will hold their cluster.yaml."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    return folder


@pytest.fixture
def vagrant(tmp_path: Path, folder: Path) -> Vagrant:
    """The command `vagrant` in the user's folder, with this checkout's Vagrantfile and `cluster` on the PATH."""
    command = tmp_path / "bin" / "cluster"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nPYTHONPATH="{CHECKOUT}/cli" exec {sys.executable} -m coupler "$@"\n')
    command.chmod(0o755)
    home = {
        "PATH": f"{command.parent}:{os.environ['PATH']}",
        "VAGRANT_HOME": str(tmp_path / "home"),
        "VAGRANT_VAGRANTFILE": str(CHECKOUT / "Vagrantfile"),
        "VAGRANT_DEFAULT_PROVIDER": "libvirt",
        "VAGRANT_CHECKPOINT_DISABLE": "1",
    }

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return call(folder, arguments, home | environment)

    return run


def call(folder: Path, arguments: tuple[str, ...], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COUPLER_", "VAGRANT_"))}
    return subprocess.run(
        ["vagrant", *arguments], cwd=folder, env=kept | variables, capture_output=True, text=True, check=False
    )


def machines(status: str) -> list[str]:
    """Return the machines in the output of `vagrant status --machine-readable`."""
    rows = [line.split(",") for line in status.splitlines()]
    return [row[1] for row in rows if row[2] == "state"]


@pytest.mark.parametrize("nodes", [1, 3, 8])
@pytest.mark.parametrize("system", ["{channel: stable}", '{channel: lts, version: "4081.3.10"}'])
def test_a_machine_is_defined_for_every_node(vagrant: Vagrant, folder: Path, nodes: int, system: str) -> None:
    text = CLUSTER.format(os=system, nodes=nodes, last=10 + nodes) if nodes > 1 else ONE_WITH_MAC
    (folder / "cluster.yaml").write_text(text)
    validated = vagrant("validate")
    assert validated.returncode == 0, validated.stderr
    status = vagrant("status", "--machine-readable")
    assert machines(status.stdout) == [f"node-{number}" for number in range(1, nodes + 1)], status.stderr
    assert {path.name for path in folder.iterdir()} == {"cluster.yaml", ".vagrant"}, "nothing else is written"


def validate_with(vagrant: Vagrant, folder: Path, ruby: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `vagrant validate` with a line of Ruby at the end of the Vagrantfile's configuration."""
    text = (CHECKOUT / "Vagrantfile").read_text()
    assert text.endswith("\nend\n")
    (folder / "Vagrantfile").write_text(f"{text[:-4]}  {ruby}\nend\n")
    return vagrant("validate", VAGRANT_VAGRANTFILE="Vagrantfile", **environment)


def probe(vagrant: Vagrant, folder: Path, expression: str, **environment: str) -> str:
    """Return what a Ruby expression about `config` gives."""
    result = validate_with(vagrant, folder, f'puts "PROBE " + ({expression}).to_s', **environment)
    assert result.returncode == 0, result.stderr
    return next(line.removeprefix("PROBE ") for line in result.stdout.splitlines() if line.startswith("PROBE "))


URL = "https://{}.release.flatcar-linux.net/{}-usr/{}/flatcar_production_vagrant.json"


@pytest.mark.parametrize(
    ("system", "url"),
    [
        ("{channel: stable}", URL.format("stable", "amd64", "current")),
        ("{channel: beta}", URL.format("beta", "amd64", "current")),
        ('{channel: lts, version: "4081.3.10"}', URL.format("lts", "amd64", "4081.3.10")),
    ],
)
def test_the_box_is_that_of_the_channel_or_the_pinned_version(
    vagrant: Vagrant, folder: Path, system: str, url: str
) -> None:
    (folder / "cluster.yaml").write_text(CLUSTER.format(os=system, nodes=3, last=13))
    assert probe(vagrant, folder, "config.vm.box_url") == url


def test_another_box_can_be_named(vagrant: Vagrant, folder: Path) -> None:
    text = CLUSTER.format(os="{distribution: container-linux}", nodes=3, last=13)
    (folder / "cluster.yaml").write_text(text + "kubernetes: {enabled: false}\n")
    refused = vagrant("validate")
    assert refused.returncode == 1
    assert "COUPLER_VAGRANT_BOX=NAME" in refused.stderr
    assert probe(vagrant, folder, "config.vm.box", COUPLER_VAGRANT_BOX="mine") == "mine"


@pytest.mark.parametrize(
    ("state", "exit_code", "told"),
    [("running", 5, "`cluster init` did not succeed"), ("shutoff", 0, "`cluster init` waits for the other machines")],
)
def test_cluster_init_is_last_and_its_exit_code_decides(
    vagrant: Vagrant, folder: Path, tmp_path: Path, state: str, exit_code: int, told: str
) -> None:
    (folder / "cluster.yaml").write_text(ONE_WITH_MAC.replace("192.168.56.1/", "git.example.org/"))
    command = tmp_path / "bin" / "cluster"
    init = f'if [ "$1" = init ]; then pwd > {tmp_path}/init; exit 5; fi'
    command.write_text(command.read_text().replace("#!/bin/sh\n", f"#!/bin/sh\n{init}\n"))
    # As after the trigger of the only machine: it has come up, and is in this state when `vagrant` ends.
    up = "host.up(Struct.new(:provider_name).new(:libvirt))"
    result = validate_with(
        vagrant, folder, f'{up}; host.define_singleton_method(:states) {{ |*| {{ "a" => :{state} }} }}'
    )
    assert result.returncode == exit_code, result.stderr
    assert told in result.stdout + result.stderr
    assert (tmp_path / "init").exists() == (state == "running")


def test_a_broken_cluster_yaml_is_told_in_the_words_of_cluster(vagrant: Vagrant, folder: Path) -> None:
    (folder / "cluster.yaml").write_text(ONE_WITH_MAC.replace("192.168.56.11", "192.168.56.256"))
    result = vagrant("status")
    assert result.returncode == 3
    assert "cluster.yaml:5:29: error: `192.168.56.256` is not an IPv4 address" in result.stderr
    assert "Vagrantfile:" not in result.stderr


def test_a_missing_cluster_yaml_is_told(vagrant: Vagrant) -> None:
    result = vagrant("status")
    assert result.returncode == 3
    assert "there is no cluster.yaml in" in result.stderr


def test_a_missing_command_is_told_with_the_way_to_get_it(vagrant: Vagrant, folder: Path, tmp_path: Path) -> None:
    (folder / "cluster.yaml").write_text(ONE_WITH_MAC)
    programs = tmp_path / "without-cluster"
    programs.mkdir()
    for program in ("vagrant", "ruby", "sh", "env"):
        (programs / program).symlink_to(shutil.which(program) or program)
    result = vagrant("status", PATH=str(programs))
    assert result.returncode == 1
    assert "Install it: pipx install coupler" in result.stderr
    assert "Vagrantfile:" not in result.stderr


def test_cluster_yaml_is_found_upwards_and_by_name(vagrant: Vagrant, folder: Path) -> None:
    (folder / "elsewhere.yaml").write_text(CLUSTER.format(os="{}", nodes=3, last=13))
    status = vagrant("status", "--machine-readable", COUPLER_FILE="elsewhere.yaml")
    assert len(machines(status.stdout)) == 3, status.stderr

    (folder / "cluster.yaml").write_text(ONE_WITH_MAC)
    below = folder / "below"
    below.mkdir()
    status = vagrant("status", "--machine-readable", VAGRANT_CWD=str(below))
    assert machines(status.stdout) == ["node-1"], status.stderr


def test_the_example_of_the_documentation_is_valid(vagrant: Vagrant, folder: Path) -> None:
    page = (CHECKOUT / "docs" / "vagrant.md").read_text()
    example = page.partition("```yaml\n")[2].partition("```")[0]
    (folder / "cluster.yaml").write_text(example.replace("~/.ssh/id_ed25519", __file__))
    status = vagrant("status", "--machine-readable")
    assert machines(status.stdout) == ["node-1", "node-2", "node-3"], status.stderr
