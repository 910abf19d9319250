"""The lab, with real machines."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coupler.errors import HostFailedError, UsageError
from coupler.lab import Lab, Power
from coupler.model import load_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def lab(make_lab: Callable[[], Lab]) -> Lab:
    lab = make_lab()
    lab.up(lab.plan(2))
    return lab


def inside(lab: Lab, machine: str, script: str) -> str:
    done = lab.exec(machine, ["sh", "-c", script])
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def run(argv: list[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False, timeout=300)


def over_ssh(lab: Lab, machine: str, *command: str) -> subprocess.CompletedProcess[str]:
    argv = lab.ssh_command(machine, command)
    return run([argv[0], "-oBatchMode=yes", "-oConnectTimeout=2", *argv[1:]])


def traces(lab: Lab) -> dict[str, set[str]]:
    """Everything on this host that is the lab's, apart from files in its folder."""
    folder, unit = str(lab.folder), f"coupler-lab-{lab.name}-"
    processes = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_text() + (entry / "environ").read_text()
        except OSError:
            continue
        if (f"{folder}/" in words or unit in words) and entry.name != str(os.getpid()):
            processes.add(entry.name)
    links = {
        path.parent.name for path in Path("/sys/class/net").glob("*/ifalias") if path.read_text().strip() == folder
    }
    cables = {path.name for link in links for path in Path("/sys/class/net").glob(f"{link}-*")}
    mounts = {line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"{folder}/" in line}
    groups = {path for path, _, _ in os.walk("/sys/fs/cgroup") if unit in path}
    namespaces = {path.name for path in Path("/run/netns").glob("*") if lab.name in path.name}
    return {
        "processes": processes,
        "links": links | cables,
        "mounts": mounts,
        "groups": groups,
        "network namespaces": namespaces,
    }


def assert_nothing_left(lab: Lab) -> None:
    assert not {kind: found for kind, found in traces(lab).items() if found}


# What a machine is


def test_ssh_is_verified_from_the_first_connection(lab: Lab) -> None:
    done = over_ssh(lab, "node-1", "id", "-un")
    assert (done.returncode, done.stdout) == (0, "core\n"), done.stderr


def test_each_machine_has_a_host_key_of_its_own(lab: Lab) -> None:
    keys = [line.split()[2] for line in lab.known_hosts.read_text().splitlines()]
    assert len(set(keys)) == 2
    changed = lab.known_hosts.read_text().replace(keys[0], "X").replace(keys[1], keys[0])
    lab.known_hosts.with_name("changed").write_text(changed)
    argv = [
        word.replace(str(lab.known_hosts), f"{lab.known_hosts.parent}/changed") for word in lab.ssh_command("node-2")
    ]
    refused = run([*argv, "true"])
    assert refused.returncode == 255
    assert "verification failed" in refused.stderr


def test_core_is_root_without_a_password(lab: Lab) -> None:
    done = over_ssh(lab, "node-1", "sudo", "-n", "id", "-u")
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_machine_is_debian_with_systemd_that_calls_itself_a_lab(lab: Lab) -> None:
    assert inside(lab, "node-1", ". /etc/os-release; echo $ID $VARIANT_ID") == "debian coupler-lab"
    assert lab.exec("node-1", ["systemctl", "is-system-running", "--wait"]).stdout == "running\n"
    assert inside(lab, "node-1", "hostname") == "node-1"


def test_there_is_no_python(lab: Lab) -> None:
    assert lab.exec("node-1", ["sh", "-c", "ls /usr/bin/*python* /opt/bin/*python* /usr/lib/python*"]).stdout == ""


def test_usr_is_read_only_and_etc_and_opt_are_not(lab: Lab) -> None:
    assert "Read-only file system" in lab.exec("node-1", ["touch", "/usr/bin/x"]).stderr
    inside(lab, "node-1", "touch /etc/x /opt/bin/x")


def test_cloudinit_applier_runs_without_python(lab: Lab) -> None:
    assert "coupler" in inside(lab, "node-1", "coreos-cloudinit --version")


def test_update_ssh_keys_keeps_the_keys_that_are_there(lab: Lab) -> None:
    inside(lab, "node-1", "echo ssh-ed25519 AAAA me | update-ssh-keys -u core -a mine")
    inside(lab, "node-1", "echo ssh-ed25519 BBBB me | update-ssh-keys -u core -a mine")
    keys = inside(lab, "node-1", "cat ~core/.ssh/authorized_keys")
    assert lab.public_key in keys
    assert "BBBB" in keys
    assert "AAAA me" not in keys
    assert over_ssh(lab, "node-1", "true").returncode == 0


def test_memory_limits_of_units_are_kept(lab: Lab) -> None:
    unit = ["systemd-run", "--wait", "--quiet", "-pMemoryMax=20M", "-pMemorySwapMax=0"]
    small = lab.exec("node-1", [*unit, "sh", "-c", "head -c 1m /dev/zero | tail -c 1m"])
    large = lab.exec("node-1", [*unit, "sh", "-c", "head -c 99m /dev/zero | tail -c 99m"])
    assert small.returncode == 0
    assert large.returncode != 0


def test_exec_passes_exit_code_and_output_on(lab: Lab) -> None:
    done = lab.exec("node-1", ["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


# What the host serves


def test_machines_pull_from_the_git_server(lab: Lab, tmp_path: Path) -> None:
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q", "-b", "main"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    subprocess.run([*git, "push", "-q", str(lab.repository_path), "main"], check=True)
    commit = subprocess.run([*git, "rev-parse", "main"], check=True, capture_output=True, text=True).stdout.strip()
    assert inside(lab, "node-2", f"git ls-remote {lab.repository_url} main").split()[0] == commit
    lab.stop_git()
    assert lab.exec("node-2", ["git", "ls-remote", lab.repository_url]).returncode == 128
    assert lab.status().servers == {"git": False, "mirror": True}
    lab.start_git()
    assert commit in inside(lab, "node-2", f"git ls-remote {lab.repository_url}")


def test_mirror_serves_etcd_with_its_checksum_and_resumes(lab: Lab) -> None:
    version = lab.image().version("etcd")
    sums = dict(
        reversed(line.split()) for line in inside(lab, "node-1", f"curl -sS {lab.mirror_url}/SHA256SUMS").splitlines()
    )
    for program in ("etcd", "etcdctl"):
        name = f"{program}/{version}/amd64/{program}"
        fetched = inside(
            lab,
            "node-1",
            f"cd /tmp && curl -sSf -r 0-999 -o f {lab.mirror_url}/{name} && curl -sSf -C - -o f {lab.mirror_url}/{name}"
            " && sha256sum f && chmod +x f && ./f --help >/dev/null",
        )
        assert fetched.split()[0] == sums[name] == hashlib.sha256((lab.mirror_folder / name).read_bytes()).hexdigest()


# What can happen to a machine


def test_second_up_boots_nothing(lab: Lab) -> None:
    assert lab.up(lab.plan(2)) == ()


@pytest.mark.parametrize("outage", ["reboot", "power cut"])
def test_disk_and_journal_outlive_an_outage_and_run_does_not(lab: Lab, outage: str) -> None:
    inside(lab, "node-1", f"echo kept >/var/lib/it; echo gone >/run/it; logger before-{outage.replace(' ', '-')}; sync")
    before = inside(lab, "node-1", "journalctl --sync; cat /proc/sys/kernel/random/boot_id /etc/machine-id; date +%s%N")
    started = inside(lab, "node-1", "systemctl show -P UserspaceTimestampMonotonic")
    if outage == "reboot":
        lab.reboot("node-1")
    else:
        lab.kill("node-1")
        assert [entry.power for entry in lab.status().machines] == [Power.OFF, Power.RUNNING]
        assert [machine.name for machine in lab.start("node-1")] == ["node-1"]
    assert inside(lab, "node-1", "systemctl show -P UserspaceTimestampMonotonic") != started
    assert inside(lab, "node-1", "cat /var/lib/it") == "kept"
    assert lab.exec("node-1", ["test", "-e", "/run/it"]).returncode == 1
    assert inside(lab, "node-1", "cat /etc/machine-id") == before.splitlines()[1]
    assert f"before-{outage.replace(' ', '-')}" in inside(lab, "node-1", "journalctl -q -o cat")
    assert over_ssh(lab, "node-1", "true").returncode == 0


def test_all_machines_reboot_at_once(lab: Lab) -> None:
    lab.reboot("node-1", "node-2")
    assert [over_ssh(lab, name, "true").returncode for name in ("node-1", "node-2")] == [0, 0]


def test_a_machine_that_is_off_is_named(lab: Lab) -> None:
    lab.kill("node-2")
    with pytest.raises(HostFailedError, match="node-2: the machine is off"):
        lab.exec("node-2", ["true"])
    with pytest.raises(UsageError, match="off"):
        lab.cut("node-2")
    lab.start("node-2")
    with pytest.raises(UsageError, match="no machine 'node-7'"):
        lab.exec("node-7", ["true"])


def test_a_cable_that_vanishes_while_it_is_looked_at_does_not_matter(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel takes the cable of a killed machine away at its own time: here, between the look and the deed."""
    lab.kill("node-2")
    monkeypatch.setattr("coupler.lab.network.interface_exists", lambda _: True)
    lab.start("node-2")
    assert over_ssh(lab, "node-2", "true").returncode == 0


def test_cut_machine_hears_nobody_and_keeps_its_address(lab: Lab) -> None:
    address = inside(lab, "node-1", "ip -o -4 address show dev host0")
    ping = ["ping", "-c1", "-W1", str(lab.plan(2)[0].address)]
    assert lab.exec("node-2", ping).returncode == 0
    lab.cut("node-1")
    assert lab.exec("node-2", ping).returncode == 1
    assert over_ssh(lab, "node-1", "true").returncode == 255
    assert inside(lab, "node-1", "ip -o -4 address show dev host0") == address
    assert lab.status().machines[0].power is Power.CUT
    lab.heal("node-1")
    assert lab.exec("node-2", ping).returncode == 0
    assert lab.status().machines[0].power is Power.RUNNING


def test_a_cable_stays_cut_over_a_reboot(lab: Lab) -> None:
    lab.cut("node-1")
    lab.exec("node-1", ["systemctl", "reboot"])
    time.sleep(2)
    assert lab.status().machines[0].power is Power.CUT
    lab.heal("node-1")
    lab.reboot("node-1")


# Several labs, and the end


def test_two_labs_do_not_see_each_other(lab: Lab, make_lab: Callable[[], Lab]) -> None:
    other = make_lab()
    other.up(other.plan(1))
    assert other.subnet != lab.subnet
    assert inside(other, "node-1", "hostname; cat /etc/machine-id") != inside(
        lab, "node-1", "hostname; cat /etc/machine-id"
    )
    with pytest.raises(UsageError, match="cannot have the subnet"):
        make_lab().up(lab.plan(1))
    other.down()
    assert over_ssh(lab, "node-1", "true").returncode == 0


@pytest.fixture
def short_lab(make_lab: Callable[[], Lab]) -> Iterator[Lab]:
    lab = make_lab()
    yield lab
    lab.down(forget=True)


def test_down_leaves_nothing_and_can_be_repeated(short_lab: Lab) -> None:
    short_lab.up(short_lab.plan(2))
    there = traces(short_lab)
    assert all(there[kind] for kind in ("processes", "links", "mounts", "groups"))
    assert short_lab.down()
    assert_nothing_left(short_lab)
    assert not short_lab.down()
    assert short_lab.down(forget=True) is False
    assert not short_lab.folder.exists()


def test_a_lab_that_comes_up_again_has_its_keys_and_empty_disks(short_lab: Lab) -> None:
    machines = short_lab.plan(1)
    short_lab.up(machines)
    known = short_lab.known_hosts.read_text()
    inside(short_lab, "node-1", "touch /var/lib/it")
    short_lab.down()
    short_lab.up(machines)
    assert short_lab.known_hosts.read_text() == known
    assert short_lab.exec("node-1", ["test", "-e", "/var/lib/it"]).returncode == 1


UP = "import sys; from coupler.lab import Lab; lab = Lab(sys.argv[1]); lab.up(lab.plan(3))"


@pytest.mark.parametrize("stage", ["bridge", "mount", "record", "groups", "boot"])
def test_up_that_was_killed_can_be_taken_down_and_completed(short_lab: Lab, stage: str) -> None:
    reached = {
        "bridge": lambda: bool(traces(short_lab)["links"]),
        "mount": lambda: bool(traces(short_lab)["mounts"]),
        "record": lambda: any(short_lab.folder.glob("run/*.machine")),
        "groups": lambda: bool(traces(short_lab)["groups"]),
        "boot": lambda: any(short_lab.folder.glob("machines/*/upper/var/log/journal/*")),
    }[stage]
    short_lab.image()
    up = subprocess.Popen([sys.executable, "-c", UP, short_lab.name])
    deadline = time.monotonic() + 30
    while not reached():
        assert up.poll() is None
        assert time.monotonic() < deadline
    up.send_signal(signal.SIGKILL)
    up.wait()
    short_lab.up(short_lab.plan(3))
    assert [over_ssh(short_lab, f"node-{number}", "true").returncode for number in (1, 2, 3)] == [0, 0, 0]
    short_lab.down()
    assert_nothing_left(short_lab)


def test_down_clears_away_what_a_killed_up_left(short_lab: Lab) -> None:
    up = subprocess.Popen([sys.executable, "-c", UP, short_lab.name])
    while not traces(short_lab)["groups"]:
        assert up.poll() is None
    up.send_signal(signal.SIGKILL)
    up.wait()
    short_lab.down()
    assert_nothing_left(short_lab)


def test_up_and_down_cope_with_killed_supervisors_and_servers(short_lab: Lab) -> None:
    short_lab.up(short_lab.plan(2))
    for record in short_lab.folder.glob("run/*"):
        os.kill(json.loads(record.read_text())["pid"], signal.SIGKILL)
    assert len(short_lab.up(short_lab.plan(2))) == 2
    inside(short_lab, "node-1", f"git ls-remote {short_lab.repository_url}")
    for record in short_lab.folder.glob("run/*"):
        os.kill(json.loads(record.read_text())["pid"], signal.SIGKILL)
    short_lab.down()
    assert_nothing_left(short_lab)


def test_command_line_from_an_empty_folder(lab_host: None, tmp_path: Path) -> None:
    folder = tmp_path / f"test-{os.getpid()}-cli"
    folder.mkdir()

    def cluster(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run([sys.executable, "-m", "coupler", "lab", *arguments], folder)

    first = cluster("up", "--nodes", "1")
    try:
        assert first.returncode == 0, first.stderr
        loaded = load_cluster(folder / "cluster.yaml")
        assert loaded.cluster.name == folder.name
        assert "unchanged" in cluster("up").stdout
        status = json.loads(cluster("status", "--output", "json").stdout)["data"]
        assert [machine["power"] for machine in status["machines"]] == ["running"]
        assert cluster("ssh", "node-1", "hostname").stdout == "node-1\n"
        assert cluster("exec", "node-1", "--", "sh", "-c", "id -un; exit 5").returncode == 5
        assert cluster("kill", "node-1").stdout == "killed node-1\n"
        assert cluster("ssh", "node-9").returncode == 2
        assert cluster("start", "node-1").returncode == 0
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "cluster.yaml").write_text((folder / "cluster.yaml").read_text())
        claimed = run([sys.executable, "-m", "coupler", "lab", "up"], elsewhere)
        assert claimed.returncode == 2
        assert str(folder) in claimed.stderr
    finally:
        down = cluster("down", "--forget")
    assert down.returncode == 0, down.stderr
    assert not Lab(folder.name).folder.exists()


def test_the_first_round_of_the_docs_works(lab_host: None, tmp_path: Path) -> None:
    folder = tmp_path / f"test-{os.getpid()}-docs"
    folder.mkdir()
    text = (Path(__file__).parents[2] / "docs" / "lab.md").read_text()
    commands = text.partition("```sh\n")[2].partition("```")[0].splitlines()
    assert commands[0].startswith("cluster lab up")
    try:
        for command in commands:
            done = run([sys.executable, "-m", "coupler", *shlex.split(command)[1:]], folder)
            assert done.returncode == 0, f"{command}: {done.stderr}"
    finally:
        Lab(folder.name).down(forget=True)
