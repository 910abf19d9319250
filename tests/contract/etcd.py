"""A real etcd that a test may stop and start again."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from tests.contract.traffic import eventually, free_port

if TYPE_CHECKING:
    from pathlib import Path


class Etcd:
    """A real etcd that may be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self._peer = folder, free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        peer = f"http://127.0.0.1:{self._peer}"
        argv = ["etcd", "--name", "one", "--data-dir", str(self.folder / "data"), "--log-level", "error"]
        argv += ["--listen-client-urls", self.url, "--advertise-client-urls", self.url, "--listen-peer-urls", peer]
        argv += ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"one={peer}", "--unsafe-no-fsync"]
        if "unsafe" not in subprocess.run(["etcd", "--help"], capture_output=True, text=True, check=False).stdout:
            argv.remove("--unsafe-no-fsync")
        with (self.folder / "etcd.log").open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log)
        eventually(lambda: self.ctl("endpoint", "health", check=False).returncode == 0, "etcd does not start")

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
