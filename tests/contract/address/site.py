"""Machines on one switch, each a network namespace with a balancer and a holder of the address; an etcd, a client."""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from tests.contract.traffic import eventually

VIRTUAL, ETCD = "10.77.0.100", "10.77.0.1"
TTL = 4
CLI = Path(__file__).parents[3] / "cli"
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET of setns(2)
_BALANCER = """
import http.server, pathlib, sys, threading
name, ready = sys.argv[1], pathlib.Path(sys.argv[2])
class Say(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        well = self.path != "/readyz" or ready.exists()
        body = (name if self.path != "/readyz" else "ok" if well else "haproxy is not in step").encode()
        self.send_response(200 if well else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 64
threading.Thread(target=Server(("127.0.0.1", 9102), Say).serve_forever, daemon=True).start()
Server(("0.0.0.0", 80), Say).serve_forever()
"""


class Namespace:
    """A network namespace that lives as long as a process of ours."""

    def __init__(self) -> None:
        setup = "ip link set lo up && echo up && exec sleep infinity"
        self.process = subprocess.Popen(["unshare", "--net", "sh", "-ec", setup], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"up\n"
        self.enter = ["nsenter", f"--target={self.process.pid}", "--net"]

    def do(self, script: str) -> str:
        done = subprocess.run([*self.enter, "sh", "-ec", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def join(self) -> None:
        """Let the calling thread use this network from now on."""
        descriptor = os.open(f"/proc/{self.process.pid}/ns/net", os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(descriptor, _NEW_NETWORK):
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(descriptor)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass
class Machine:
    """One that may have the address. Its cable's end at the switch is `port`."""

    name: str
    number: int
    folder: Path
    hub: Namespace
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.space, self.port = Namespace(), f"port{self.number}"
        self.folder.mkdir()
        self.ready = self.folder / "ready"
        self.ready.touch()
        self.config = self.folder / "address.yaml"
        self.config.write_text(
            json.dumps(
                {
                    "address": VIRTUAL,
                    "etcd": {"endpoints": [f"http://{ETCD}:2379"]},
                    "accepts": ["127.0.0.1:80"],
                    "ready": "http://127.0.0.1:9102/readyz",
                    "ttl": TTL,
                    "patience": 2,
                }
            )
        )
        pid = self.space.process.pid
        self.hub.do(
            f"ip link add {self.port} type veth peer name eth0 netns {pid}; "
            f"ip link set {self.port} master switch; ip link set {self.port} up"
        )
        self.space.do(f"ip address add 10.77.0.{10 + self.number}/24 dev eth0; ip link set eth0 up")

    def start_balancer(self) -> None:
        self._start("balancer", sys.executable, "-c", _BALANCER, self.name, str(self.ready))

    def start_holder(self) -> None:
        self._start("holder", *self.program)

    def release(self) -> None:
        """Do what systemd does after the end of the process."""
        subprocess.run(
            [*self.space.enter, *self.program, "--release"], check=True, env=os.environ | {"PYTHONPATH": str(CLI)}
        )

    @property
    def program(self) -> list[str]:
        return [sys.executable, "-m", "coupler.registrator", "hold-address", "--config", str(self.config)]

    def _start(self, what: str, *argv: str) -> None:
        environment = os.environ | {"PYTHONPATH": str(CLI)}
        with (self.folder / f"{what}.log").open("ab") as log:
            self.running[what] = subprocess.Popen([*self.space.enter, *argv], stdout=log, stderr=log, env=environment)

    def send(self, what: str, number: signal.Signals) -> None:
        self.running[what].send_signal(number)

    def stop(self, what: str, number: signal.Signals = signal.SIGKILL) -> int:
        process = self.running.pop(what)
        process.send_signal(number)
        return process.wait(15)

    @property
    def has_address(self) -> bool:
        return bool(self.space.do(f"ip -o -4 address show to {VIRTUAL}/32"))

    def state(self) -> dict[str, object]:
        asked = "curl --silent --show-error --retry 20 --retry-delay 1 --retry-connrefused http://127.0.0.1:9103/state"
        answer = json.loads(self.space.do(asked))
        assert isinstance(answer, dict)
        return answer

    def log(self) -> str:
        return (self.folder / "holder.log").read_text()

    def end(self) -> None:
        for what in list(self.running):
            self.stop(what)
        self.space.end()


class Site:
    """A switch with an etcd behind it, and the machines."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hub = Namespace()
        self.machines: list[Machine] = []
        self._etcd: subprocess.Popen[bytes] | None = None
        self.hub.do(f"ip link add switch type bridge; ip address add {ETCD}/24 dev switch; ip link set switch up")
        self.hub.do("ip address add 10.77.0.2/24 dev switch")

    def start_etcd(self) -> None:
        url, peer = f"http://{ETCD}:2379", "http://127.0.0.1:2380"
        argv = ["etcd", "--name", "one", "--data-dir", str(self.folder / "data"), "--log-level", "error"]
        argv += ["--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls", peer]
        argv += ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"one={peer}", "--unsafe-no-fsync"]
        with (self.folder / "etcd.log").open("ab") as log:
            self._etcd = subprocess.Popen([*self.hub.enter, *argv], stdout=log, stderr=log)

    def stop_etcd(self) -> None:
        if self._etcd is not None:
            self._etcd.kill()
            self._etcd.wait()
            self._etcd = None

    def add(self, name: str) -> Machine:
        machine = Machine(name, len(self.machines) + 1, self.folder / name, self.hub)
        self.machines.append(machine)
        return machine

    def holders(self) -> list[Machine]:
        """Return those that have the address: it may move while they are asked, and is then looked for again."""
        found = [machine for machine in self.machines if machine.has_address]
        return found if len(found) == 1 else [machine for machine in self.machines if machine.has_address]

    def holder(self, within: float = 60.0) -> Machine:
        """Return the one that has the address, as soon as one has it."""
        found: list[Machine] = []
        eventually(lambda: bool(found.extend(self.holders()) or found), "nobody has the address", within)
        [machine] = found
        return machine

    def moved(self, old: Machine, within: float) -> Machine:
        """Wait until another than `old` has the address, and it has not; return that one."""
        seen: list[list[Machine]] = []
        eventually(
            lambda: bool(seen.append(self.holders()) or (len(seen[-1]) == 1 and seen[-1] != [old])),
            f"the address stays with {old.name}",
            within,
        )
        return seen[-1][0]

    def end(self) -> None:
        for machine in self.machines:
            machine.end()
        self.stop_etcd()
        self.hub.end()


class Client(threading.Thread):
    """One request after another to the address, from beside the switch: when each was answered, and by whom."""

    def __init__(self, site: Site) -> None:
        super().__init__(daemon=True)
        self._site, self._enough = site, threading.Event()
        self.answers: list[tuple[float, str]] = []
        self.failed: list[tuple[float, str]] = []

    def __enter__(self) -> Client:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self.join(10)

    def run(self) -> None:
        self._site.hub.join()
        while not self._enough.wait(0.02):
            connection = HTTPConnection(VIRTUAL, 80, timeout=3)
            try:
                connection.request("GET", "/")
                self.answers.append((time.monotonic(), connection.getresponse().read().decode()))
            except (OSError, HTTPException) as error:
                self.failed.append((time.monotonic(), repr(error)))
            finally:
                connection.close()

    def served_by(self, name: str, within: float = 15.0) -> None:
        """Wait until requests are answered by this one."""
        eventually(lambda: bool(self.answers) and self.answers[-1][1] == name, f"{name} does not serve", within)

    @property
    def longest_gap(self) -> float:
        """The longest time between two answers, in seconds."""
        times = [when for when, _ in self.answers]
        return max((later - earlier for earlier, later in itertools.pairwise(times)), default=0.0)


def never_two(site: Site, seconds: float) -> None:
    """Look for so many seconds: no two have the address at a time, and in the end one has."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert len(site.holders()) <= 1
        time.sleep(0.05)
    site.holder()
