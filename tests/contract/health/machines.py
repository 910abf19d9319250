"""Machines for coupler-health: namespaces with the addresses, ports and folders of nodes, and real programs in them."""

from __future__ import annotations

import ctypes
import os
import subprocess
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from coupler.model import Node, load_cluster
from coupler.render.context import context, node_table
from coupler.workflows.certificates import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coupler.model import Cluster

SCRIPT = Path(__file__).parents[3] / "cloud-config/scripts/coupler-health"
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET of setns(2)
_SETUP = """
mount -t overlay overlay -o lowerdir=/etc,upperdir={folder}/upper,workdir={folder}/work /etc
mkdir -p /etc/coupler && mount --bind {folder}/etc /etc/coupler
mount -t tmpfs tmpfs /run && mkdir /run/coupler && mount --bind {folder}/run /run/coupler
ip link set lo up && echo up && exec sleep infinity
"""


@dataclass
class Machine:
    """One node: a namespace for its network and one for its mounts. `folder` has what is in its /etc and /run."""

    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    started: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("upper", "work", "etc", "run", "bin"):
            (self.folder / name).mkdir(parents=True)
        setup = ["unshare", "--mount", "--net", "sh", "-ec", _SETUP.format(folder=self.folder)]
        self.holder = subprocess.Popen(setup, stdout=subprocess.PIPE)
        assert self.holder.stdout is not None
        assert self.holder.stdout.readline() == b"up\n"

    @property
    def enter(self) -> list[str]:
        """The beginning of a command that runs in it."""
        path = f"{self.folder}/bin:{os.environ['PATH']}"
        return ["nsenter", f"--target={self.holder.pid}", "--mount", "--net", "env", f"PATH={path}"]

    def join_network(self) -> None:
        """Let the calling thread use this machine's network from now on."""
        if ctypes.CDLL(None, use_errno=True).setns(
            os.open(f"/proc/{self.holder.pid}/ns/net", os.O_RDONLY), _NEW_NETWORK
        ):
            raise OSError(ctypes.get_errno(), "setns")

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*self.enter, *argv], capture_output=True, text=True, check=False)

    def do(self, script: str) -> str:
        """Run a script that must succeed."""
        done = self.run("sh", "-ec", script)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, name: str, *argv: str) -> None:
        """Start a program, which ends with the machine."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.started[name] = subprocess.Popen([*self.enter, *argv], stdout=log, stderr=log)

    def stop(self, name: str) -> None:
        process = self.started.pop(name)
        process.kill()
        process.wait()

    def close(self) -> None:
        for name in list(self.started):
            self.stop(name)
        self.holder.kill()
        self.holder.wait()

    def health(self, *words: str, shell: str = "sh") -> dict[str, str]:
        """Return what coupler-health says: component → state and reason."""
        done = self.run(shell, str(SCRIPT), *words)
        assert done.stderr == "", done.stderr
        verdicts = dict(line.split(" ", 1) for line in done.stdout.splitlines())
        assert done.returncode == any(verdict.startswith("bad") for verdict in verdicts.values())
        assert not list((self.folder / "run").glob("health.*"))
        return verdicts


class Site:
    """A cluster of machines that are on one network, each with what its node gets over git and SSH."""

    def __init__(self, folder: Path, cluster_yaml: str) -> None:
        (folder / "cluster.yaml").write_text(cluster_yaml)
        self.folder, self.cluster = folder, load_cluster(folder / "cluster.yaml").cluster
        self.store = Store(folder / "pki", self.cluster)
        self.store.make(datetime.now(UTC))
        self.machines: dict[str, Machine] = {}
        self.switch = Machine(folder / "switch")
        self.switch.do("ip link add switch type bridge && ip link set switch up")
        for node in self.cluster.nodes:
            self.machines[node.name] = self._machine(node)

    def close(self) -> None:
        for machine in (*self.machines.values(), self.switch):
            machine.close()

    def _machine(self, node: Node) -> Machine:
        machine = Machine(self.folder / node.name)
        port = node.name[-15:]
        self.switch.do(
            f"ip link add {port} type veth peer name eth0 netns {machine.holder.pid}"
            f" && ip link set {port} master switch && ip link set {port} up"
        )
        machine.do(f"ip address add {node.address}/24 dev eth0 && ip link set eth0 up")
        for path, (content, mode) in self.store.files_for(node).items():
            place = machine.folder / "etc" / path.removeprefix("etc/coupler/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
            place.chmod(mode)
        identity = f"COUPLER_NODE={node.name}\nCOUPLER_ADDRESS={node.address}\n"
        (machine.folder / "run/identity.env").write_text(identity)
        table = node_table(self.cluster)
        (machine.folder / "etc/nodes").write_text(table)
        row = next(line.split() for line in table.splitlines() if line.startswith(f"{node.name} "))
        for role in row[3].split(","):
            (machine.folder / "run/roles").mkdir(exist_ok=True)
            (machine.folder / "run/roles" / role).touch()
        settings = context(self.cluster)["health_settings"].replace("/opt/", f"{machine.folder}/")
        (machine.folder / "etc/health.conf").write_text(settings)
        (machine.folder / "run/artifacts").write_text("")
        return machine

    def install(self, programs: Sequence[str]) -> None:
        """Let every machine have these programs, as far as the table of components looks."""
        for machine in self.machines.values():
            for program in programs:
                (machine.folder / "bin" / program).touch()

    def start_etcd(self, *nodes: str) -> None:
        """Start the members on these nodes, and on every machine the gateway to them."""
        for node in self.cluster.etcd_members:
            if node.name in nodes:
                self.machines[node.name].start("etcd", *_member(self.cluster, node))

    def start_gateways(self) -> None:
        etcd = context(self.cluster)["etcd"]
        options = {
            "listen-addr": "127.0.0.1:2379",
            "retry-delay": etcd["gateway_retry"],
            "endpoints": etcd["gateway_endpoints"],
        }
        argv = ("/usr/bin/etcd", "gateway", "start", *(f"--{name}={value}" for name, value in options.items()))
        for machine in self.machines.values():
            machine.start("gateway", *argv)


def _member(cluster: Cluster, node: Node) -> list[str]:
    """Return the command line of a member: that of etcd.service, without what depends on the machine's disk."""
    client, peer, pki = f"https://{node.address}:2379", f"https://{node.address}:2380", "/etc/coupler/pki/etcd"
    options = {
        "name": node.name,
        "data-dir": "/run/etcd",
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": context(cluster)["etcd"]["initial_cluster"],
        "trusted-ca-file": f"{pki}/ca.crt",
        "cert-file": f"{pki}/server.crt",
        "key-file": f"{pki}/server.key",
        "peer-trusted-ca-file": f"{pki}/ca.crt",
        "peer-cert-file": f"{pki}/peer.crt",
        "peer-key-file": f"{pki}/peer.key",
        "heartbeat-interval": "50",
        "election-timeout": "500",
        "quota-backend-bytes": str(16 * 2**20),
        "log-level": "error",
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    return ["/usr/bin/etcd", "--client-cert-auth", "--peer-client-cert-auth", "--enable-v2", *words]


def until(machine: Machine, component: str, beginning: str, *words: str) -> str:
    """Wait until coupler-health says something of a component that begins so; return it."""
    deadline = time.monotonic() + 30
    while True:
        said = machine.health(*words).get(component, "")
        if said.startswith(beginning):
            return said
        assert time.monotonic() < deadline, f"{component}: {said!r} does not begin with {beginning!r}"
