"""A real etcd that a test may stop and start again."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from tests.contract.traffic import eventually, free_port

if TYPE_CHECKING:
    from pathlib import Path


class Etcd:
    """A real etcd that may be stopped and started again; `options` are more of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._options = options
        self.folder, self.port, self._peer = folder, free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.start_unchecked()
        eventually(lambda: self.ctl("endpoint", "health", check=False).returncode == 0, "etcd does not start")

    def start_unchecked(self) -> None:
        """Start it without waiting until it answers: with authentication on, it does not answer everybody."""
        peer = f"http://127.0.0.1:{self._peer}"
        argv = ["etcd", "--name", "one", "--data-dir", str(self.folder / "data"), "--log-level", "error"]
        argv += ["--listen-client-urls", self.url, "--advertise-client-urls", self.url, "--listen-peer-urls", peer]
        argv += ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"one={peer}", "--unsafe-no-fsync"]
        argv += self._options
        if "unsafe" not in subprocess.run(["etcd", "--help"], capture_output=True, text=True, check=False).stdout:
            argv.remove("--unsafe-no-fsync")
        with (self.folder / "etcd.log").open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def ctl(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        argv = ["etcdctl", "--endpoints", self.url, "--command-timeout=5s", *words]
        environment = os.environ | {"ETCDCTL_API": "3"}
        return subprocess.run(argv, capture_output=True, text=True, check=check, env=environment)

    def put(self, key: str, value: str, *words: str) -> None:
        self.ctl("put", key, value, *words)


class EtcdCluster:
    """Several members of one etcd. It has a quorum while more than half of them run."""

    def __init__(self, folder: Path, members: int) -> None:
        self.folder = folder
        self.urls = tuple(f"http://127.0.0.1:{free_port()}" for _ in range(members))
        self._peers = tuple(f"http://127.0.0.1:{free_port()}" for _ in range(members))
        self.processes: list[subprocess.Popen[bytes] | None] = [None] * members

    @property
    def url(self) -> str:
        """The address of the first member."""
        return self.urls[0]

    def start(self, member: int) -> None:
        url, peer = self.urls[member], self._peers[member]
        argv = ["etcd", "--name", f"m{member}", "--data-dir", str(self.folder / f"m{member}"), "--log-level", "error"]
        argv += ["--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls", peer]
        argv += ["--initial-advertise-peer-urls", peer, "--heartbeat-interval", "50", "--election-timeout", "500"]
        argv += [
            "--enable-v2",
            "--initial-cluster",
            ",".join(f"m{number}={at}" for number, at in enumerate(self._peers)),
        ]
        with (self.folder / f"m{member}.log").open("ab") as log:
            self.processes[member] = subprocess.Popen(argv, stdout=log, stderr=log)

    def start_all(self) -> None:
        for member in range(len(self.urls)):
            self.start(member)
        eventually(self.healthy, "the members of etcd find no quorum")

    def healthy(self) -> bool:
        argv = ["etcdctl", "--endpoints", ",".join(self.urls), "--command-timeout=5s", "endpoint", "health"]
        environment = os.environ | {"ETCDCTL_API": "3"}
        return subprocess.run(argv, capture_output=True, check=False, env=environment).returncode == 0

    def stop(self, member: int) -> None:
        process = self.processes[member]
        if process is not None:
            process.kill()
            process.wait()
            self.processes[member] = None

    def stop_all(self) -> None:
        for member in range(len(self.urls)):
            self.stop(member)
