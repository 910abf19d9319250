"""The cluster: everything that cluster.yaml says, with its defaults, as one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from ipaddress import IPv4Network
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from coupler.model.access import Git, Ssh
from coupler.model.addons import COREDNS, upstream_coredns
from coupler.model.catalogue import PROGRAMS, Artifact, artifacts_of, balancing_artifacts_of
from coupler.model.components import Etcd, Kubernetes
from coupler.model.fields import Host, Name, Version, line_of
from coupler.model.files import CertificatePath, Fragment
from coupler.model.fleet import Fleet
from coupler.model.images import PAUSE_IMAGE, MirroredImage, newest_among, pause_among
from coupler.model.network import POD_SUBNET, Networking
from coupler.model.node import MAX_NODES, Node, NodeRow, Role
from coupler.model.problem import did_you_mean, problem
from coupler.model.section import Section
from coupler.model.services import ArtifactOverride, Docker, LoadBalancer, Mirror, Proxy
from coupler.model.system import System

CONTROL_PLANE_TAINT = (1, 24, 0)
"""Older releases, and what runs on them, know the control plane by the taint `node-role.kubernetes.io/master`."""


def _format(value: object) -> int:
    text = line_of(value)
    if text != "1":
        raise problem(
            "unsupported-version", f"this Coupler reads version 1 of cluster.yaml, not `{text}`", "write `version: 1`"
        )
    return 1


def _program(value: object) -> str:
    text = line_of(value)
    if text not in PROGRAMS:
        hint = did_you_mean(text, PROGRAMS) or f"the programs are {', '.join(PROGRAMS)}"
        raise problem("unknown-artifact", f"no node needs a program `{text}`", hint)
    return text


def _some_nodes(rows: tuple[NodeRow, ...]) -> tuple[NodeRow, ...]:
    if not rows:
        hint = "add one: `- {name: node-1, address: 10.0.0.11, roles: [control, worker]}`"
        raise problem("no-nodes", "the cluster has no nodes", hint)
    if sum(row.size for row in rows) > MAX_NODES:
        raise problem("too-many-nodes", f"the cluster has more than {MAX_NODES:,} nodes", "check the ranges")
    return rows


FormatVersion: TypeAlias = Annotated[int, BeforeValidator(_format), WithJsonSchema({"const": 1})]
ProgramName: TypeAlias = Annotated[str, BeforeValidator(_program)]


class Cluster(Section):
    """A cluster of Container Linux machines."""

    version: FormatVersion = Field(description="The version of this file's format: 1.")
    name: Name = Field(description="The name of the cluster: a DNS label.")
    os: System = Field(default_factory=System, description="The operating system of the nodes.")
    ssh: Ssh = Field(default_factory=Ssh, description="How the nodes are reached over SSH.")
    git: Git = Field(description="The repository that carries the cloud-config to the nodes.")
    network: Networking = Field(default_factory=Networking, description="The networks of pods and services.")
    etcd: Etcd = Field(default_factory=Etcd, description="etcd, the cluster's memory.")
    fleet: Fleet = Field(default_factory=Fleet, description="fleet schedules systemd units over the cluster.")
    kubernetes: Kubernetes = Field(default_factory=Kubernetes, description="Kubernetes, as systemd units.")
    docker: Docker = Field(default_factory=Docker, description="The Docker engine of the nodes.")
    proxy: Proxy = Field(default_factory=Proxy, description="The proxy through which nodes reach the outside world.")
    ca_certificates: tuple[CertificatePath, ...] = Field(
        default=(), description="PEM files, relative to cluster.yaml, of certificate authorities that the nodes trust."
    )
    time_servers: tuple[Host, ...] = Field(default=(), description="NTP servers; without any, the distribution's own.")
    load_balancer: LoadBalancer | None = Field(default=None, description="The load balancer on the nodes with role lb.")
    extra: Fragment = Field(
        default=None, description="Your own #cloud-config fragment: the path of a file, or its keys right here."
    )
    mirror: Mirror | None = Field(
        default=None, description="Where the nodes get programs from before they ask upstream."
    )
    artifacts: Mapping[ProgramName, ArtifactOverride] = Field(
        default_factory=dict,
        description="Other builds of programs, or checksums that Coupler does not know, by program.",
    )
    rows: Annotated[tuple[NodeRow, ...], AfterValidator(_some_nodes)] = Field(
        alias="nodes", description="The machines of the cluster."
    )

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Every machine, ranges expanded, in the order of the file."""
        return tuple(node for index, row in enumerate(self.rows) for node in row.expand(index, self.ssh))

    @cached_property
    def control_nodes(self) -> tuple[Node, ...]:
        """The nodes that run Kubernetes' control plane."""
        return self._with(Role.CONTROL)

    @cached_property
    def workers(self) -> tuple[Node, ...]:
        """The nodes that run pods."""
        return self._with(Role.WORKER)

    @cached_property
    def load_balancers(self) -> tuple[Node, ...]:
        """The nodes that run the load balancer."""
        return self._with(Role.LB)

    @cached_property
    def etcd_members(self) -> tuple[Node, ...]:
        """The members of etcd: the nodes with the role etcd or, when none has it, the control nodes."""
        return self._with(Role.ETCD) or self.control_nodes

    def peer_url(self, node: Node) -> str:
        """Return where a node's member of etcd listens to its peers."""
        return f"{self.etcd.scheme}://{node.address}:2380"

    @cached_property
    def artifacts_needed(self) -> tuple[Artifact, ...]:
        """The programs that this cluster's switches call for and the image does not ship."""
        return artifacts_of(self)

    @cached_property
    def balancing_artifacts(self) -> tuple[Artifact, ...]:
        """The programs that the nodes with the role lb need on top."""
        return balancing_artifacts_of(self)

    @cached_property
    def mirrored_images(self) -> tuple[MirroredImage, ...]:
        """The images of the mirror's folder for the architecture of the nodes."""
        folder = self.mirror.folder if self.mirror else None
        return tuple(image for image in folder.images if image.arch == self.os.arch) if folder else ()

    @cached_property
    def images(self) -> tuple[MirroredImage, ...]:
        """Those of them that containerd gets: none without Kubernetes."""
        return self.mirrored_images if self.kubernetes.enabled else ()

    @cached_property
    def pause_image(self) -> str:
        """The image of a pod's sandbox: the one asked for, or the mirror's, or upstream's."""
        return self.kubernetes.pause_image or pause_among(self.images, str(self.os.arch)) or PAUSE_IMAGE

    @cached_property
    def coredns_image(self) -> str:
        """The image of CoreDNS: the one asked for, or the mirror's, or upstream's for this Kubernetes."""
        asked = self.kubernetes.addons.coredns
        upstream = upstream_coredns(self.kubernetes.version.numbers[1], asked.version)
        found = None if asked.version else newest_among(self.images, str(self.os.arch), COREDNS)
        return asked.image or found or upstream

    @cached_property
    def lacks_coredns(self) -> bool:
        """Whether no node can have the image of CoreDNS: they get only what the mirror has, and it lacks this image."""
        if not (self.mirror and self.mirror.only and self.mirror.folder):
            return False
        return not any(self.coredns_image in image.references for image in self.images)

    @cached_property
    def runs_coredns(self) -> bool:
        """Whether CoreDNS is an addon of this cluster."""
        asked = self.kubernetes.addons.coredns.enabled
        return self.kubernetes.enabled and (not self.lacks_coredns if asked is None else asked)

    def version_of(self, program: str) -> Version:
        """Return the version of a program of Kubernetes: its artifact's, or the one it is pinned to, or everyone's."""
        override = self.artifacts.get(program)
        pin = override.version if override else None
        if not pin and program == "kubelet":
            pin = self.kubernetes.kubelet.version
        if not pin and program == "kube-proxy":
            pin = self.kubernetes.proxy.version
        return pin or self.kubernetes.version

    def taints_of(self, node: Node) -> tuple[str, ...]:
        """Return the taints with which a node joins Kubernetes: its row's or, for a node that is no worker, its role's.

        The control plane's taint was called `master` until Kubernetes 1.24 (KEP 2067).
        """
        if node.taints is not None:
            return node.taints
        if Role.WORKER in node.roles or not self.kubernetes.enabled:
            return ()
        names = [role.value for role in node.roles]
        if Role.CONTROL in node.roles:
            names = ["control-plane"]
            if self.version_of("kube-apiserver").numbers < CONTROL_PLANE_TAINT:
                names.append("master")
        return tuple(f"node-role.kubernetes.io/{name}:NoSchedule" for name in names)

    def pod_subnet_of(self, node: Node) -> IPv4Network:
        """Return the part of the pods' network that a node has without flannel: its row's, or the one that is as far
        from the network's beginning as the node's address is, in /24s, counted around. No other node changes it.

        Raises:
            ValueError: the pods' network is smaller than a /24.
        """
        pods = self.network.pods
        if pods.prefixlen > POD_SUBNET:
            raise ValueError(f"{pods} has no /{POD_SUBNET}")
        if node.pod_subnet:
            return node.pod_subnet
        place = int(node.address) % (1 << (POD_SUBNET - pods.prefixlen))
        return IPv4Network((int(pods.network_address) + (place << (32 - POD_SUBNET)), POD_SUBNET))

    def _with(self, role: Role) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes if role in node.roles)
