"""What the lab needs of its host, changes on it, and builds on it."""

from __future__ import annotations

import os
import stat
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from coupler import __version__
from coupler.errors import ConfigurationError, CouplerError, Severity, UsageError
from coupler.files import write_whole
from coupler.lab import building, image, kernel
from coupler.lab.clusterfile import lab_cluster_yaml
from coupler.lab.keys import ensure_key_pair
from coupler.lab.lab import Lab
from coupler.lab.machine import Machine
from coupler.lab.network import Network, stable_mac
from coupler.lab.requirements import demand, requirements
from coupler.lab.state import LabState
from coupler.model import Role, load_cluster
from coupler.model.catalogue import programs_of
from coupler.workflows.lab import lab_up

PLUGINS = "cni-plugins-linux-amd64-v1.1.1.tgz"


def test_missing_programs_are_named_with_the_command_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    missing = {requirement.what: requirement for requirement in requirements() if not requirement.ok}
    assert missing["systemd-nspawn"].mend == "apt-get install systemd-container"
    with pytest.raises(CouplerError) as caught:
        demand()
    assert "mmdebstrap: not found" in str(caught.value.why)
    assert "apt-get install mmdebstrap" in str(caught.value.next_step)


def test_the_lab_refuses_a_user_who_is_not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(CouplerError) as caught:
        demand()
    assert "run the command with sudo" in str(caught.value.next_step)


def test_disks_do_not_go_onto_an_overlay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/state")
    disk = next(requirement for requirement in requirements() if "disks" in requirement.what)
    assert disk.found.startswith("proc at ")


def test_kernel_settings_are_raised_and_put_back(tmp_path: Path) -> None:
    setting = tmp_path / "sys/fs/inotify/max_user_instances"
    setting.parent.mkdir(parents=True)
    setting.write_text("128\n")
    saved = tmp_path / "saved"
    for _ in range(2):
        kernel.raise_limits(saved, tmp_path / "sys")
        assert setting.read_text() == "8192"
    kernel.restore_limits(saved, tmp_path / "sys")
    assert setting.read_text() == "128"
    assert not saved.exists()


@pytest.mark.parametrize("value", ["99999", "200"])
def test_kernel_settings_of_somebody_else_are_left_alone(tmp_path: Path, value: str) -> None:
    setting = tmp_path / "sys/fs/inotify/max_user_instances"
    setting.parent.mkdir(parents=True)
    setting.write_text("128")
    saved = tmp_path / "saved"
    kernel.raise_limits(saved, tmp_path / "sys")
    setting.write_text(value)
    kernel.restore_limits(saved, tmp_path / "sys")
    assert setting.read_text() == value


@pytest.mark.parametrize(
    ("library", "release"),
    [
        (("glibc", "2.31"), "bookworm"),
        (("glibc", "2.36"), "bookworm"),
        (("glibc", "2.39"), "trixie"),
        (("glibc", "2.43"), "sid"),
    ],
)
def test_the_root_has_a_c_library_no_older_than_the_host(
    monkeypatch: pytest.MonkeyPatch, library: tuple[str, str], release: str
) -> None:
    monkeypatch.setattr(image.platform, "libc_ver", lambda: library)
    assert image.debian_release() == release


def test_a_build_that_fails_leaves_no_half_image(tmp_path: Path) -> None:
    def build(draft: Path, log: Path) -> None:
        (draft / "half").touch()
        log.write_text("it went wrong")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        building.build(tmp_path / "root-1", build)
    assert [path.name for path in tmp_path.iterdir()] == ["root-1.log"]


def test_what_a_killed_build_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".build-x" / "half").mkdir(parents=True)
    with building.building(tmp_path):
        assert not (tmp_path / ".build-x").exists()


def test_images_that_nobody_used_for_a_week_are_deleted(tmp_path: Path) -> None:
    used, old, recent = (tmp_path / name for name in ("root-used", "applier-old", "applier-recent"))
    for folder in (used, old, recent):
        folder.mkdir()
    for folder in (used, old):
        os.utime(folder, (0, 0))
    image.keep_image(tmp_path, image.Image(used / "root.squashfs", recent, used / "programs"))
    assert used.exists()
    assert recent.exists()
    assert not old.exists()


def test_files_are_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, "old")
    write_whole(path, b"new", 0o600)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_key_pair_is_made_once(tmp_path: Path) -> None:
    private = tmp_path / "id"
    line = ensure_key_pair(private, "me")
    assert line.startswith("ssh-ed25519 AAAA")
    assert line.endswith(" me")
    assert ensure_key_pair(private, "somebody else") == line
    assert stat.S_IMODE(private.stat().st_mode) == 0o600


def test_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    state = LabState(
        network=Network(7),
        image=image.Image(Path("/c/root.squashfs"), Path("/c/a"), Path("/c/programs")),
        machines=(Machine("node-1", IPv4Address("10.213.7.11"), "02:00:00:00:00:01"),),
        home=Path("/home"),
    )
    for each in (state, LabState()):
        each.save(tmp_path / "lab.json")
        assert LabState.load(tmp_path / "lab.json") == each


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Lab:
    """A lab that has its network and keys, and no machine."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "da ta"))
    lab = Lab("demo")
    lab.folder.mkdir(parents=True)
    LabState(Network(9)).save(lab.folder / "lab.json")
    lab.known_hosts.write_text("")
    lab.mirror_folder.mkdir(parents=True)
    places = ("etcd/3.4.23/amd64/etcd", "etcdctl/3.4.23/amd64/etcdctl", f"cni-plugins/1.1.1/amd64/{PLUGINS}")
    (lab.mirror_folder / "SHA256SUMS").write_text("".join(f"{'a' * 64}  {place}\n" for place in places))
    return lab


@pytest.mark.parametrize("count", [1, 3, 5])
def test_the_cluster_yaml_of_a_lab_is_valid(lab: Lab, tmp_path: Path, count: int) -> None:
    machines = lab.plan(count)
    path = tmp_path / "cluster.yaml"
    path.write_text(lab_cluster_yaml("demo", machines, lab))
    loaded = load_cluster(path)
    assert {finding.severity for finding in loaded.warnings} <= {Severity.WARNING}
    cluster = loaded.cluster
    assert [(node.name, node.address, node.mac) for node in cluster.nodes] == [
        (machine.name, machine.address, machine.mac) for machine in machines
    ]
    assert len(cluster.control_nodes) == min(count, 3)
    assert all((Role.WORKER in node.roles) is (count <= 3 or number >= 3) for number, node in enumerate(cluster.nodes))
    assert cluster.git.repository == "git://10.213.9.1/demo.git"
    assert cluster.git.push == str(lab.repository_path)
    assert cluster.etcd.version == "3.4.23"


def test_the_cluster_yaml_of_a_lab_asks_for_what_its_mirror_has(lab: Lab, tmp_path: Path) -> None:
    programs = {
        "etcd": "3.5.16",
        "etcdctl": "3.5.16",
        "flanneld": "0.5.5",
        "locksmithctl": "0.6.2",
        "kubectl": "1.35.1",
    }
    programs |= dict.fromkeys(("fleetd", "fleetctl"), "1.0.0")
    programs |= {name: "1.36.4" for name in programs_of("kubernetes") if name != "kubectl"}
    places = [f"{name}/{version}/amd64/{name}" for name, version in programs.items()]
    places += [f"cni-plugins/1.1.1/amd64/{PLUGINS}", f"registrator/{__version__}/amd64/registrator.tar.gz"]
    sums = lab.mirror_folder / "SHA256SUMS"
    sums.write_text("".join(f"{'a' * 64}  {place}\n" for place in places))
    path = tmp_path / "cluster.yaml"
    path.write_text(lab_cluster_yaml("demo", lab.plan(3), lab))
    loaded = load_cluster(path)
    assert [warning.code for warning in loaded.warnings] == ["coredns-without-image"]
    assert {a.name: a.version for a in loaded.cluster.artifacts_needed} == {**programs, "cni-plugins": "1.1.1"}
    assert all(artifact.urls for artifact in loaded.cluster.artifacts_needed)
    assert "# The newest in the mirror; before 0.18 flannel speaks etcd's v2 API." in path.read_text()


def test_without_kubernetes_the_cluster_yaml_says_how_to_add_it(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(lab_cluster_yaml("demo", lab.plan(1), lab))
    assert "cluster mirror add kubelet FILE --version 1.35.1" in path.read_text()
    kubernetes = load_cluster(path).cluster.kubernetes
    assert "version" not in kubernetes.model_fields_set
    assert kubernetes.enabled


def test_planned_machines_have_names_addresses_and_macs(lab: Lab) -> None:
    first, second = lab.plan(2)
    assert first == Machine("node-1", IPv4Address("10.213.9.11"), stable_mac("demo/node-1"))
    assert second.address == IPv4Address("10.213.9.12")
    with pytest.raises(CouplerError):
        lab.plan(0)
    with pytest.raises(CouplerError):
        lab.plan(245)


def test_a_cluster_yaml_of_a_lab_that_was_forgotten_is_named(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(lab_cluster_yaml("demo", lab.plan(1), lab))
    for half in (lab.private_key, lab.private_key.with_suffix(".pub")):
        half.unlink()
    with pytest.raises(ConfigurationError, match="is of a lab that was forgotten") as caught:
        lab_up(path, None, None, lambda _: None)
    assert f"remove {path}" in (caught.value.next_step or "")


def test_options_of_a_new_lab_are_refused_where_cluster_yaml_says_something_else(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(lab_cluster_yaml("demo", lab.plan(1), lab))
    with pytest.raises(UsageError, match="--nodes is for a new lab"):
        lab_up(path, 2, None, lambda _: None)
    with pytest.raises(UsageError, match="--mirror is for a new lab"):
        lab_up(path, 1, tmp_path, lambda _: None)
