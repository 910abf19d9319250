"""The stand-ins for fleetd and fleetctl; and a real fleetctl beside them, where there is one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.contract.traffic import eventually
from tests.standins.build import runnable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.contract.etcd import Etcd

UNIT = "[Service]\nExecStart=/usr/bin/sleep infinity\n\n[X-Fleet]\nMachineMetadata=site=home\n"
SYSTEMCTL = """\
#!/bin/sh
echo "$*" >> "${0%/*}/systemctl.log"
[ "$1" != show ] || printf 'LoadState=loaded\\nActiveState=active\\nSubState=running\\n'
"""
"""What stands for a system manager: where a machine has none, that is all that the agent asks of it."""
STARTED = """
mount -t tmpfs tmpfs /run && mount --bind MACHINE /etc/machine-id && export LISTEN_FDS=1 && exec "$0" 3<&0
"""
MACHINE = "0123456789abcdef0123456789abcdef"


def real() -> Path | None:
    """Return a real fleetctl, if COUPLER_TEST_MIRROR names a folder that has one."""
    return next(iter(Path(os.environ.get("COUPLER_TEST_MIRROR", "/nowhere")).glob("fleetctl/*/*/fleetctl")), None)


class Fleet:
    """A machine of fleet, and fleetctl."""

    def __init__(self, folder: Path, etcd: Etcd, fleetctl: Path) -> None:
        self._folder, self._fleetctl = folder, fleetctl
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / "fleet.sock"))
        self._listener.listen()
        (folder / "machine-id").write_text(f"{MACHINE}\n")
        (folder / "systemctl").write_text(SYSTEMCTL)
        (folder / "systemctl").chmod(0o755)
        setting = {"ETCD_SERVERS": etcd.url, "PUBLIC_IP": "10.0.0.9", "METADATA": "site=home,disk=ssd"}
        environment = {f"FLEET_{name}": value for name, value in setting.items()}
        environment["PATH"] = f"{folder}:{os.environ['PATH']}"
        script = STARTED.replace("MACHINE", str(folder / "machine-id"))
        self.daemon = subprocess.Popen(
            ["unshare", "--mount", "sh", "-ec", script, str(runnable(folder, "fleetd"))],
            env=os.environ | environment,
            stdin=self._listener,
            stderr=(folder / "fleetd.log").open("w"),
        )

    def ctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        argv = [self._fleetctl, f"--endpoint=unix://{self._folder}/fleet.sock", *words]
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)

    def rows(self, *words: str) -> list[list[str]]:
        return [line.split() for line in self.ctl(*words, "--no-legend").stdout.splitlines()]

    @property
    def asked(self) -> str:
        """What the system manager was asked to do."""
        log = self._folder / "systemctl.log"
        return log.read_text() if log.exists() else ""

    def stop(self) -> None:
        self.daemon.terminate()
        self.daemon.wait(timeout=10)
        self._listener.close()


@pytest.fixture(params=["stand-in", "real"])
def fleet(request: pytest.FixtureRequest, tmp_path: Path, etcd: Etcd) -> Iterator[Fleet]:
    if os.geteuid():
        pytest.skip("a machine's identity of its own: this needs root")
    fleetctl = runnable(tmp_path, "fleetctl") if request.param == "stand-in" else real()
    if not fleetctl:
        pytest.skip("the real fleetctl: COUPLER_TEST_MIRROR names no mirror folder that has it")
    fleet = Fleet(tmp_path, etcd, fleetctl)
    try:
        eventually(lambda: fleet.rows("list-machines", "--full") != [], "no machine registers")
        yield fleet
    finally:
        fleet.stop()


@pytest.fixture
def unit(tmp_path: Path) -> str:
    (tmp_path / "hello.service").write_text(UNIT)
    return str(tmp_path / "hello.service")


def test_a_machine_is_there_as_long_as_it_says_so(fleet: Fleet, etcd: Etcd) -> None:
    assert fleet.rows("list-machines", "--full") == [[MACHINE, "10.0.0.9", "disk=ssd,site=home"]]
    assert fleet.ctl("list-machines").stdout.splitlines()[0].split() == ["MACHINE", "IP", "METADATA"]
    assert fleet.rows("list-machines")[0][0] == f"{MACHINE[:8]}..."
    fleet.stop()
    found = ["curl", "-s", f"{etcd.url}/v2/keys/_coreos.com/fleet/machines/{MACHINE}/object"]
    answer = json.loads(subprocess.run(found, capture_output=True, check=True).stdout)
    assert answer["errorCode"] == 100, "it has left"


def test_a_unit_is_submitted_launched_unloaded_and_destroyed(fleet: Fleet, unit: str) -> None:
    assert fleet.ctl("submit", unit).stdout == "Unit hello.service inactive\n"
    assert fleet.ctl("submit", unit).stdout == ""
    assert fleet.ctl("cat", "hello.service").stdout == UNIT
    assert fleet.rows("list-unit-files", "--fields=unit,dstate") == [["hello.service", "inactive"]]
    assert fleet.ctl("start", "--no-block", unit).returncode == 0
    eventually(lambda: fleet.rows("list-units", "--fields=unit,active,sub") != [], "it is not scheduled")
    assert fleet.rows("list-units", "--full")[0] == ["hello.service", f"{MACHINE}/10.0.0.9", "active", "running"]
    eventually(lambda: fleet.rows("list-unit-files", "--fields=unit,state")[0][1] == "launched", "it has no heartbeat")
    assert "link --runtime /run/fleet/units/hello.service\nstart --no-block hello.service\n" in fleet.asked
    assert fleet.ctl("unload", "--no-block", "hello.service").returncode == 0
    eventually(lambda: fleet.rows("list-units") == [], "it is not unloaded")
    assert "stop hello.service\n" in fleet.asked
    assert fleet.ctl("destroy", "hello.service").stdout == "Destroyed hello.service\n"
    assert fleet.rows("list-unit-files") == []


def test_another_text_is_told_and_not_taken(fleet: Fleet, unit: str) -> None:
    fleet.ctl("submit", unit)
    Path(unit).write_text(UNIT.replace("infinity", "9"))
    said = fleet.ctl("submit", unit)
    told = f"Unit hello.service in registry differs from local unit file {unit}. Add --replace to override."
    assert (said.returncode, said.stderr) == (0, f"WARNING: {told}\n")
    assert fleet.ctl("cat", "hello.service").stdout == UNIT


def test_no_machine_takes_a_unit_that_wants_another_one(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "away.service").write_text(UNIT.replace("home", "away"))
    (tmp_path / "all.service").write_text(UNIT.replace("MachineMetadata", "Global=true\nMachineMetadata"))
    for name in ("away", "all"):
        fleet.ctl("start", "--no-block", str(tmp_path / f"{name}.service"))
    eventually(lambda: fleet.rows("list-units", "--fields=unit") == [["all.service"]], "the global unit does not run")
    assert ["away.service", "-"] in fleet.rows("list-unit-files", "--fields=unit,target")


def test_what_the_real_one_does_not_take(fleet: Fleet) -> None:
    unknown = fleet.ctl("list-units", "--no-such-flag")
    assert unknown.returncode == 0
    assert "cannot execute cmdFleet: unknown flag: --no-such-flag" in unknown.stderr
    assert fleet.ctl("list-units", "--fields=nothing").returncode == 1
    assert fleet.ctl("cat", "nowhere.service").returncode == 1
    assert fleet.ctl("destroy", "nowhere.service").returncode == 0
