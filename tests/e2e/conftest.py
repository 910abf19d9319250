"""Labs for tests: real machines, always taken down; and sites, where an operator works with one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import coupler
from coupler.lab import Lab, requirements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_numbers = count(1)
_PATIENCE = 300  # seconds after which a command counts as hung


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Let what a test starts hear Ctrl-C: a shell that runs the tests in the background has them ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def lab_host() -> None:
    """Skip where this host cannot run the lab, and say what it lacks."""
    missing = [f"{requirement.what} ({requirement.mend})" for requirement in requirements() if not requirement.ok]
    if missing:
        pytest.skip(f"this host cannot run the lab: {', '.join(missing)}")


@pytest.fixture(scope="session")
def make_lab(lab_host: None) -> Iterator[Callable[[], Lab]]:
    """Make labs with names and subnets of their own; at the end nothing of them is left."""
    labs: list[Lab] = []

    def make() -> Lab:
        lab = Lab(f"test-{os.getpid()}-{next(_numbers)}")
        labs.append(lab)
        return lab

    yield make
    for lab in labs:
        lab.down(forget=True)


@dataclass(frozen=True)
class Answer:
    """What `cluster` came to: its exit code, what a person reads, and the envelope where JSON was asked for."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def envelope(self) -> dict[str, Any]:
        """The JSON envelope."""
        value: dict[str, Any] = json.loads(self.stdout)
        return value

    @property
    def data(self) -> dict[str, Any]:
        """The `data` of the envelope."""
        value: dict[str, Any] = self.envelope["data"]
        return value

    @property
    def failed(self) -> dict[str, str]:
        """The nodes that a run lost, each with the reason."""
        return {host["host"]: host["text"] for host in self.data["failed"]}

    def states(self, step: str) -> dict[str, str]:
        """Return what became of each node in a step of a run."""
        [found] = [entry for entry in self.data["steps"] if entry["title"] == step]
        return {host["host"]: host["state"] for host in found["hosts"]}


@dataclass(frozen=True)
class Site:
    """An operator's folder with a cluster.yaml, and the lab whose machines it describes."""

    folder: Path
    lab: Lab

    @property
    def file(self) -> Path:
        """The cluster.yaml."""
        return self.folder / "cluster.yaml"

    @property
    def machines(self) -> tuple[str, ...]:
        """The names of the lab's machines."""
        return tuple(entry.machine.name for entry in self.lab.status().machines)

    @property
    def published(self) -> str:
        """The commit that the cluster's branch is at."""
        return self.git("rev-parse", "main")

    def mark(self, verb: str) -> str:
        """Return what is in the environment of every process that a run of this verb here starts."""
        return f"{verb} in {self.folder}"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `cluster` as a shell does: in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "coupler", *arguments],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": str(Path(coupler.__file__).parents[1]),  # this very code, from any folder
                "STARTED_BY_TEST": self.mark(arguments[0]),
            },
            process_group=0,
        )

    def cluster(self, *arguments: str) -> Answer:
        """Run `cluster`. No answer of it is a traceback."""
        process = self.start(*arguments)
        stdout, stderr = process.communicate(timeout=_PATIENCE)
        assert "Traceback" not in stderr
        return Answer(process.returncode, stdout, stderr)

    def json(self, *arguments: str) -> Answer:
        """Run `cluster` with JSON as output."""
        return self.cluster(*arguments, "--output", "json")

    def edit(self, old: str, new: str) -> None:
        """Change cluster.yaml."""
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new))

    def extra(self, fragment: str) -> None:
        """Give cluster.yaml a cloud-config fragment of the user's own, which is indented by two."""
        self.file.write_text(f"{self.file.read_text()}\nextra:\n{fragment}")

    def inside(self, machine: str, script: str) -> str:
        """Run a script as root in a machine, past the network; return what it printed."""
        done = self.lab.exec(machine, ["sh", "-c", script])
        assert done.returncode == 0, f"{machine}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def everywhere(self, script: str) -> dict[str, str]:
        """Run a script as root in every machine."""
        return {machine: self.inside(machine, script) for machine in self.machines}

    @contextmanager
    def put_back(self) -> Iterator[None]:
        """Leave cluster.yaml and the nodes as they were before, by another `cluster init`."""
        text = self.file.read_text()
        yield
        self.file.write_text(text)
        answer = self.json("init")
        assert answer.exit_code == 0, answer.stderr

    def git(self, *arguments: str) -> str:
        """Run git in the repository that the machines pull from."""
        argv = ["git", "-C", str(self.lab.repository_path), *arguments]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def make_site(make_lab: Callable[[], Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Site]]:
    """Make sites with as many machines as asked for, by `lab up` with more options; at the module's end all is gone."""
    labs: list[Lab] = []

    def make(machines: int, *options: str) -> Site:
        lab = make_lab()
        labs.append(lab)
        folder = tmp_path_factory.mktemp("site") / lab.name
        folder.mkdir()
        site = Site(folder, lab)
        up = site.cluster("lab", "up", "--nodes", str(machines), *options)
        assert up.exit_code == 0, up.stderr
        # Nodes look when they are told to, or boot: no test depends on when their timer elapses.
        site.edit("  signing_key:", "  interval: 1h\n  signing_key:")
        return site

    yield make
    for lab in labs:
        lab.down(forget=True)


@pytest.fixture(scope="module")
def make_cluster(make_site: Callable[..., Site]) -> Callable[[int, str], Site]:
    """Make sites whose nodes are a cluster already, and give new documents so long to become healthy."""

    def make(machines: int, health_timeout: str) -> Site:
        site = make_site(machines)
        site.edit("  signing_key:", f"  health_timeout: {health_timeout}\n  signing_key:")
        answer = site.cluster("init")
        assert answer.exit_code == 0, answer.stderr
        return site

    return make
