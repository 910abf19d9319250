"""What pulling costs: a look at nothing new, and two hundred nodes at one static web server.

A simulated node is the real coupler-pull in mount namespaces of its own: its folders are its own, its coreos-cloudinit
and systemctl do nothing. So what is measured is looking, fetching, verifying and remembering, not applying.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.measure import Row, Times, timed

from coupler.adapters.git import Repository
from coupler.mirror import fileserver
from coupler.model import load_cluster
from coupler.render import render_document
from coupler.workflows.publication import DOCUMENT

if TYPE_CHECKING:
    from collections.abc import Iterator

_NODES = 200
_ROUNDS = 5
_ADDRESS, _PORT = "127.0.0.1", 18089
_SCRIPTS = Path(__file__).parents[2] / "cloud-config" / "scripts"
_CLUSTER = Path(__file__).parents[1] / "fixtures" / "cluster" / "valid" / "three-plus-five.yaml"
_OWN = ("etc/coupler", "etc/systemd/system", "var/lib/coupler", "run/coupler", "opt/bin")
_ENTER = """
for folder in $OWN; do mkdir -p "/$folder" && mount --bind "$ROOT/$folder" "/$folder"; done
PATH=/opt/bin:$PATH exec /opt/bin/coupler-pull
"""


@dataclass(frozen=True)
class _Node:
    """One simulated node, in a folder."""

    root: Path

    @classmethod
    def make(cls, root: Path, signer: str) -> _Node:
        for folder in _OWN:
            (root / folder).mkdir(parents=True)
        (root / "etc/coupler/pull.conf").write_text(f"REPOSITORY=http://{_ADDRESS}:{_PORT}/bench.git\nBRANCH=main\n")
        (root / "etc/coupler/allowed_signers").write_text(signer)
        for name in ("coupler-pull", "coupler-apply"):
            (root / "opt/bin" / name).write_bytes((_SCRIPTS / name).read_bytes())
        for name in ("coreos-cloudinit", "systemctl"):
            (root / "opt/bin" / name).write_text("#!/bin/sh\n")
        for path in (root / "opt/bin").iterdir():
            path.chmod(0o755)
        return cls(root)

    def pull(self) -> float:
        """Pull, and return the seconds that it took."""
        environment = {**os.environ, "ROOT": str(self.root), "OWN": " ".join(_OWN)}
        return timed(["unshare", "--mount", "sh", "-ec", _ENTER], self.root, env=environment)

    def applied(self) -> str:
        """The commit that the node is at."""
        return (self.root / "run/coupler/applied").read_text().strip()


@dataclass(frozen=True)
class _Server:
    """The web server: its process, and the file of what it was asked."""

    pid: int
    log: Path

    def seconds(self) -> float:
        """Processor time that it has used."""
        user, system = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def requests(self) -> int:
        """How often it was asked."""
        return len(re.findall(r'"(?:GET|HEAD|POST) ', self.log.read_text()))


@contextmanager
def _served(folder: Path) -> Iterator[_Server]:
    log = folder / "requests"
    argv = [sys.executable, "-IS", str(fileserver.__file__), _ADDRESS, str(_PORT), str(folder)]
    with log.open("w") as stream, subprocess.Popen(argv, stdout=stream, stderr=stream) as process:
        try:
            for _ in range(100):
                if (
                    subprocess.run(
                        ["curl", "-sf", f"http://{_ADDRESS}:{_PORT}/"], capture_output=True, check=False
                    ).returncode
                    == 0
                ):
                    break
                time.sleep(0.05)
            yield _Server(process.pid, log)
        finally:
            process.kill()


def measure(folder: Path) -> tuple[list[Row], list[str]]:
    """Return the rows, and lines on the server's load."""
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    signer = f"bench {key.with_suffix('.pub').read_text()}"
    remote = folder / "bench.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(remote)], check=True)
    repository = Repository(folder / "copy.git", str(remote), "main", key)
    document = render_document(load_cluster(_CLUSTER).cluster)
    nodes = [_Node.make(folder / f"node-{number}", signer) for number in range(_NODES)]
    times = Times()
    with _served(folder) as server:
        head = _publish(repository, document, None)
        nodes[0].pull()
        asked = server.requests()
        for _ in range(_ROUNDS):
            times.add("a look at nothing new", nodes[0].pull())
            times.add("git ls-remote", timed(["git", "ls-remote", f"http://{_ADDRESS}:{_PORT}/bench.git"], folder))
        looks = (server.requests() - asked - 2 * _ROUNDS) / _ROUNDS
        first, first_load = _everybody(nodes, server)
        head = _publish(
            repository, document.replace("coupler-pull", "coupler-pull", 1) + "# changed\n# End of the document\n", head
        )
        second, second_load = _everybody(nodes, server)
        behind = sum(node.applied() != head for node in nodes)
    if behind:
        raise RuntimeError(f"{behind} of {_NODES} nodes are not at {head}")
    rows = [
        Row("a look at nothing new", times["a look at nothing new"], "git ls-remote", times["git ls-remote"]),
        Row(f"{_NODES} nodes pull their first document", first, "a minute", 60),
        Row(f"{_NODES} nodes pull a new commit", second, "a minute", 60),
    ]
    return rows, [
        f"a look at nothing new: {looks:.0f} request",
        f"the static server, {_NODES} first documents: {first_load}",
        f"the static server, {_NODES} times a new commit: {second_load}",
    ]


def _publish(repository: Repository, document: str, parent: str | None) -> str:
    commit = repository.commit({DOCUMENT: document}, "bench", parent)
    repository.push(commit)
    return commit


def _everybody(nodes: list[_Node], server: _Server) -> tuple[float, str]:
    """Let every node pull at a moment of its own within twenty seconds, as the timer of so many nodes does."""
    asked, used, began = server.requests(), server.seconds(), time.perf_counter()
    moments = random.Random(1)

    def pull(node: _Node) -> None:
        time.sleep(max(0.0, began + moments.uniform(0, _NODES / 10) - time.perf_counter()))
        node.pull()

    with ThreadPoolExecutor(_NODES) as pool:
        list(pool.map(pull, nodes))
    seconds = time.perf_counter() - began
    requests, busy = server.requests() - asked, server.seconds() - used
    return seconds, f"{requests} requests, {busy:.1f} s of processor time in {seconds:.0f} s"
