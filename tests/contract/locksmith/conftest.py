"""locksmith's lock in a real etcd, reached as a node reaches it: by the very scripts."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.standins.build import runnable

from coupler.adapters.locksmith import LOCKS, Semaphore, semaphores_in
from coupler.assets import asset
from coupler.workflows.script import Answer, script

if TYPE_CHECKING:
    from tests.contract.etcd import Etcd


@dataclass(frozen=True)
class Locks:
    """The locks in an etcd."""

    etcd: Etcd

    def ask(self, method: str, path: str, body: str = "") -> tuple[int, str]:
        """Run the script that `cluster lock` runs on a node; return HTTP status and answer."""
        text = script("etcd", {"METHOD": method, "URL": f"{self.etcd.url}{path}", "BODY": body})
        done = subprocess.run(["sh", "-s"], input=text, capture_output=True, text=True, check=True)
        answer = Answer(done.stdout)
        return int(answer.one("code")), answer.one("body")

    def read(self, group: str = "") -> Semaphore:
        return semaphores_in(self.ask("GET", f"{LOCKS}?recursive=true")[1])[group]

    def put(self, after: Semaphore, before: Semaphore, group: str = "") -> int:
        """Put a lock in place of another one; return the HTTP status."""
        return self.ask("PUT", *after.replacement_of(before, group))[0]

    def slots(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the node's script that lets so many nodes reboot at a time."""
        argv = ["sh", str(asset("cloud-config") / "scripts" / "coupler-reboot-slots"), *arguments]
        environment = os.environ | {"COUPLER_ETCD": self.etcd.url}
        return subprocess.run(argv, capture_output=True, text=True, check=False, env=environment, timeout=60)


@pytest.fixture
def locks(etcd: Etcd) -> Locks:
    return Locks(etcd)


@pytest.fixture(scope="session", params=["stand-in", "real"])
def locksmithctl(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program: our stand-in; and the real one, where COUPLER_TEST_MIRROR names a mirror's folder that has it."""
    if request.param == "stand-in":
        return runnable(tmp_path_factory.mktemp("standin"), "locksmithctl")
    folder = os.environ.get("COUPLER_TEST_MIRROR")
    if not folder:
        pytest.skip("the real locksmithctl: COUPLER_TEST_MIRROR names no mirror folder that has it")
    found = sorted(Path(folder).glob("locksmithctl/*/*/locksmithctl"))
    if not found:
        pytest.skip(f"the real locksmithctl: {folder} has no locksmithctl/VERSION/ARCH/locksmithctl")
    return found[-1]
