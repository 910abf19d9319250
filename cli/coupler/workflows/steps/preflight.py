"""Look at every node before anything changes: is it the machine we think it is, and can it become a node?"""

from __future__ import annotations

import re
import time
from ipaddress import IPv4Interface
from typing import TYPE_CHECKING

from coupler.errors import HostFailedError
from coupler.model import Role
from coupler.model.services import EVERYWHERE, Balancer
from coupler.result import HostOutcome, State, StepOutcome
from coupler.workflows.clock import MEND, problem_with, skew_of
from coupler.workflows.report import BALANCING
from coupler.workflows.run import Run, checked, hosts_step, target
from coupler.workflows.script import Answer, script

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coupler.model import Cluster, Node
    from coupler.model.services import LoadBalancer

FREE_KIB = {"/etc": 1024, "/opt": 262_144, "/run": 4096, "/var/lib": 262_144}
"""KiB that must be free: programs go to /opt, etcd's data and downloads to /var/lib."""
PORTS = {2379: "etcd", 2380: "etcd", 6443: "kube-apiserver"}
OLDEST_HAPROXY = [2, 6]  # the first that adds and deletes servers while it runs
OLDEST_SYSTEMD = 247  # the first with LoadCredential=
SYSTEMS = {"flatcar", "coreos"}
LAB_VARIANT = "coupler-lab"

Problem = tuple[str, str]
"""What is wrong, and what to do about it."""


class Preflight:
    """SSH and host key, system, sudo, programs, disk, clock, ports, and that the address is the table's."""

    title = "preflight"

    def run(self, run: Run) -> StepOutcome:
        """Ask every node in parallel; it changes nothing, so a dry run does it too."""

        def ask(node: Node) -> HostOutcome:
            before = time.time()
            completed = run.connections.run(target(node), script("preflight"))
            checked(node, completed.exit_status, completed.stderr)
            answer = Answer(completed.stdout)
            skew = skew_of(answer, before, time.time())
            problems = list(problems_of(run.cluster, node, answer, skew))
            if problems:
                raise HostFailedError("; ".join(what for what, _ in problems), next_step=problems[0][1], host=node.name)
            return HostOutcome(node.name, State.OK, f"{answer.one('os_name')}, reachable as {node.ssh_user}")

        outcomes = run.on_every_node(ask)
        good = sum(not outcome.failed for outcome in outcomes)
        return hosts_step(self.title, outcomes, f"{good} of {len(outcomes)} nodes are ready")


def problems_of(cluster: Cluster, node: Node, answer: Answer, skew: float) -> Iterator[Problem]:
    """Yield what keeps a machine from becoming this node. `skew`: seconds that its clock is ahead of ours."""
    yield from _system(answer)
    yield from _identity(cluster, node, answer)
    yield from _disk(answer)
    if clock := problem_with(skew):
        yield clock, MEND
    yield from _ports(cluster, node, answer)
    if cluster.load_balancer and Role.LB in node.roles:
        yield from _balancer(cluster, cluster.load_balancer, answer)
        yield from _balanced_ports(cluster.load_balancer, answer)
        yield from _virtual_address(cluster.load_balancer, answer)


def _system(answer: Answer) -> Iterator[Problem]:
    if answer.one("os_id") not in SYSTEMS and answer.one("os_variant") != LAB_VARIANT:
        yield f"it runs {answer.one('os_name') or 'an unknown system'}", "install Flatcar Container Linux on it"
    if answer.one("root") != "0":
        yield "we do not become root with sudo", "give the user of ssh.user passwordless sudo"
    missing = answer.all("missing")
    if missing:
        yield f"it has no {', '.join(missing)}", "install Flatcar Container Linux on it: the image holds them"


def _identity(cluster: Cluster, node: Node, answer: Answer) -> Iterator[Problem]:
    addresses, macs = answer.one("addresses").split(), answer.one("macs").split()
    if node.mac and node.mac.lower() in macs:
        return
    if str(node.address) in addresses:
        others = [other.name for other in cluster.nodes if other.mac and other.mac.lower() in macs]
        if others:
            yield f"its MAC address is that of {others[0]} in cluster.yaml", "correct mac or address of one of the two"
        return
    where = f"its addresses are {' '.join(addresses) or 'none'}, and cluster.yaml says {node.address}"
    yield where, f"correct the address of {node.name} in cluster.yaml, or of the machine"


def _disk(answer: Answer) -> Iterator[Problem]:
    for folder in answer.all("unwritable"):
        yield f"{folder} cannot be written", f"free space on it, or mount it writable: df -h {folder}"
    for entry in answer.all("free"):
        folder, _, free = entry.partition(" ")
        wanted = FREE_KIB.get(folder, 0)
        if free.isdigit() and int(free) < wanted:
            yield (
                f"{folder} has {int(free) // 1024} MiB free, of {wanted // 1024} MiB needed",
                f"free space on {folder}",
            )


def _ports(cluster: Cluster, node: Node, answer: Answer) -> Iterator[Problem]:
    for entry in answer.all("listener"):
        address, _, process = entry.partition(" ")
        host, _, port = address.rpartition(":")
        owner = PORTS.get(int(port)) if port.isdigit() else None
        if not owner or not _is_ours(cluster, node, owner):
            continue
        ours = {"etcd": ('"etcd"', '"etcd2"'), "kube-apiserver": ('"kube-apiserver"', '"etcd"')}[owner]
        if host.strip("[]%") in {"0.0.0.0", "*", "::", str(node.address), "127.0.0.1"} and not any(  # noqa: S104
            name in process for name in ours
        ):
            name = process.partition('"')[2].partition('"')[0] or "another process"
            number = process.partition("pid=")[2].partition(",")[0]
            whose = f"stop it; on the node, `systemctl status {number or name}` shows its unit"
            yield f"port {port}, which {owner} needs, is in use by {name}", whose


def _balancer(cluster: Cluster, balancer: LoadBalancer, answer: Answer) -> Iterator[Problem]:
    systemd = answer.one("systemd")
    if systemd.isdigit() and int(systemd) < OLDEST_SYSTEMD:
        yield f"its systemd {systemd} cannot hand credentials to a service", "take a newer release of the system"
    artifacts = {artifact.name: artifact for artifact in cluster.balancing_artifacts}
    for artifact in artifacts.values():
        lacks = "server is known to have it" if not artifact.urls else "" if artifact.sha256 else "checksum is known"
        if lacks:
            mend = f"cluster check says how to give {artifact.name}"
            yield f"{artifact.name} cannot be fetched: no {lacks}", mend
    kind = str(balancer.kind)
    if balancer.kind is Balancer.VULCAND or kind in artifacts:
        return
    found = {name: version for name, _, version in (entry.partition(" ") for entry in answer.all("balancer"))}
    if kind not in found:
        yield f"it has no {kind}", f"give artifacts.{kind} its url and sha256 in cluster.yaml, or install {kind} there"
    elif balancer.kind is Balancer.HAPROXY:
        numbers = [int(number) for number in re.findall(r"\d+", found[kind])[:2]]
        if numbers < OLDEST_HAPROXY:
            oldest = ".".join(map(str, OLDEST_HAPROXY))
            mend = f"give artifacts.haproxy the url and sha256 of HAProxy {oldest} or newer in cluster.yaml"
            yield f"its HAProxy is older than {oldest}: {found[kind]}", mend


def _balanced_ports(balancer: LoadBalancer, answer: Answer) -> Iterator[Problem]:
    if balancer.kind is Balancer.VULCAND:
        return
    for bind in (*balancer.http, *balancer.https):
        wanted, _, port = bind.rpartition(":")
        for entry in answer.all("listener"):
            address, _, process = entry.partition(" ")
            host, _, taken = address.rpartition(":")
            ours = any(unit in process for unit in BALANCING)
            if taken == port and not ours and (host in EVERYWHERE or wanted in EVERYWHERE or host == wanted):
                name = process.partition('"')[2].partition('"')[0] or "another process"
                unit = next((word for word in process.split() if word.endswith(".service")), None)
                mend = f"on the node: systemctl disable --now {unit}" if unit else "stop it"
                yield (
                    f"port {port}, which the load balancer needs, is in use by {name}",
                    f"{mend}; or change load_balancer",
                )


def _virtual_address(balancer: LoadBalancer, answer: Answer) -> Iterator[Problem]:
    address = balancer.virtual_address
    networks = [IPv4Interface(text) for text in answer.one("networks").split()]
    own = [each for each in networks if each.ip != address]
    if address and not any(address in each.network for each in own):
        where = ", ".join(map(str, own)) or "none"
        mend = "choose an address in the network of the nodes with the role lb, or give the role to others"
        yield f"{address} is in none of its networks: {where}", mend


def _is_ours(cluster: Cluster, node: Node, owner: str) -> bool:
    if owner == "etcd":
        return node in cluster.etcd_members
    return cluster.kubernetes.enabled and node in cluster.control_nodes
