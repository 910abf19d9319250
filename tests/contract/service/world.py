"""A whole site on loopback: a real etcd or API server, real balancers, and `registrator run` as a process."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from tests.contract.traffic import DEADLINE, eventually, free_port

SOURCES = Path(__file__).parents[3] / "cli"


@dataclass
class Registrator:
    """`registrator run` with a configuration file of its own; it may be killed and started again.

    `words` are what its command line says in place of a file.
    """

    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        return self.folder / "registrator.yaml"

    @property
    def control(self) -> Path:
        return self.folder / "control.sock"

    @property
    def log(self) -> Path:
        return self.folder / "registrator.log"

    def write(self) -> None:
        own = {"listen": f"127.0.0.1:{self.port}", "control": str(self.control), "state": str(self.folder / "state")}
        self.config.write_text(yaml.safe_dump(own | self.settings, sort_keys=False))

    def start(self, *words: str, ready: bool = True) -> None:
        """Start it, and wait until everything is in step."""
        self.folder.mkdir(exist_ok=True)
        self.write()
        given = (*self.words, "--listen", f"127.0.0.1:{self.port}") if self.words else ("--config", str(self.config))
        argv = [sys.executable, "-m", "coupler.registrator", "run", *given, *words]
        environment = os.environ | {"PYTHONPATH": str(SOURCES)} | self.environment
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, env=environment)
        if ready:
            eventually(self.ready, f"the registrator is never ready: {self.log}")

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run another verb beside it."""
        argv = [sys.executable, "-m", "coupler.registrator", *words]
        environment = os.environ | {"PYTHONPATH": str(SOURCES)}
        return subprocess.run(argv, capture_output=True, text=True, check=False, env=environment, timeout=60)

    def stop(self) -> int:
        """Ask it to end; return its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE)

    def pause(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def state(self) -> Any:
        return json.loads(self.get("/state")[1])

    def ready(self) -> bool:
        assert self.process is None or self.process.poll() is None, self.log.read_text()
        try:
            return self.get("/readyz")[0] == 200 and not any(each["pending"] for each in self.state()["balancers"])
        except OSError:
            return False

    def events(self, message: str) -> list[dict[str, Any]]:
        """Return what was logged under a message."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["message"] == message]
