"""The programs of the cluster: etcd and Kubernetes."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, Field

from coupler.model.addons import Addons
from coupler.model.fields import (
    Duration,
    DurationText,
    EndpointText,
    Flag,
    Host,
    ImageReference,
    JsonObject,
    Option,
    Quantity,
    Text,
    Threshold,
    Value,
    Version,
    VersionText,
    count_of,
)
from coupler.model.section import Section

Args = Mapping[Option, Value]
_ARGS = "More options of the program, without the leading `--`; they win over what Coupler sets."


class Etcd(Section):
    """etcd, the cluster's memory. Its members are the nodes with the role etcd, or else the control nodes."""

    version: VersionText = Field(
        default=Version("3.5.25"), description="The version of etcd. 3.6 and later have no v2 API."
    )
    v2_api: Flag = Field(
        default=True, description="Serve the v2 API, which locksmith's etcd-lock, fleet and old flannel need."
    )
    tls: Flag = Field(default=True, description="Encrypt and authenticate clients and peers with certificates.")
    heartbeat_interval: Annotated[int, Field(ge=10, le=10_000), BeforeValidator(count_of)] = Field(
        default=100,
        description="Milliseconds between two heartbeats of the leader: about one round trip between members.",
    )
    election_timeout: Annotated[int, Field(ge=50, le=50_000), BeforeValidator(count_of)] = Field(
        default=1000, description="Milliseconds without a heartbeat before an election; at least 5 heartbeats."
    )
    extra_args: Args = Field(default_factory=dict, description=_ARGS)

    @property
    def scheme(self) -> str:
        """That of etcd's URLs."""
        return "https" if self.tls else "http"


class Component(Section):
    """A program of Kubernetes."""

    extra_args: Args = Field(default_factory=dict, description=_ARGS)


class Reserved(Section):
    """What of a node is kept from pods (Kubernetes' documentation, 'Reserve Compute Resources')."""

    cpu: Quantity | None = Field(default=None, description="CPUs, such as `500m` for half of one.")
    memory: Quantity | None = Field(default=None, description="Memory, such as `512Mi`.")
    ephemeral_storage: Quantity | None = Field(default=None, description="Space on the file system of pods' files.")
    pid: Quantity | None = Field(default=None, description="Numbers of processes.")


class SystemReserved(Reserved):
    """The same for everything that is no pod; the control plane is part of it."""

    cpu: Quantity | None = Field(default="100m", description="CPUs, such as `500m` for half of one.")
    memory: Quantity | None = Field(default="200Mi", description="Memory, such as `512Mi`.")


class EvictionHard(Section):
    """How little may be left before the kubelet evicts pods at once (Kubernetes' documentation, 'Node-pressure')."""

    memory_available: Threshold = Field(default="100Mi", description="Memory: a quantity, or per cent of it.")
    nodefs_available: Threshold = Field(default="10%", description="Space on the file system of /var/lib/kubelet.")
    nodefs_inodes_free: Threshold = Field(default="5%", description="Inodes of that file system.")
    imagefs_available: Threshold = Field(default="15%", description="Space on the file system of containerd's images.")


class Kubelet(Component):
    """The kubelet of every node."""

    version: VersionText | None = Field(
        default=None, description="Another version than the API server's: up to three minor versions older."
    )
    system_reserved: SystemReserved = Field(
        default_factory=SystemReserved, description="What pods leave to the rest of the system."
    )
    kube_reserved: Reserved = Field(
        default_factory=Reserved, description="What pods leave to the kubelet and containerd, on top."
    )
    eviction_hard: EvictionHard = Field(
        default_factory=EvictionHard, description="How little may be left before pods are evicted at once."
    )
    shutdown_grace_period: DurationText = Field(
        default=Duration("60s"), description="How long a shutdown waits for pods to end; `0s`: not at all."
    )
    shutdown_grace_period_critical_pods: DurationText = Field(
        default=Duration("15s"), description="The last part of that time, which is for critical pods alone."
    )
    configuration: JsonObject = Field(
        default_factory=dict, description="More fields of KubeletConfiguration; they win over what Coupler sets."
    )


class ProxyMode(StrEnum):
    """How kube-proxy steers packets for services to pods."""

    IPTABLES = "iptables"
    IPVS = "ipvs"
    NFTABLES = "nftables"


class KubeProxy(Component):
    """kube-proxy makes the services' addresses work on every node."""

    version: VersionText | None = Field(
        default=None, description="Another version than the API server's: up to three minor versions older."
    )

    mode: ProxyMode = Field(
        default=ProxyMode.IPTABLES, description="iptables; nftables (Kubernetes 1.31 and later); or ipvs (deprecated)."
    )


class Kubernetes(Section):
    """Kubernetes, as systemd units."""

    enabled: Flag = Field(default=True, description="Whether the cluster runs Kubernetes.")
    version: VersionText = Field(default=Version("1.35.1"), description="The version of all its programs.")
    cni_plugins_version: VersionText = Field(
        default=Version("1.8.0"),
        description="The version of the CNI reference plugins (bridge, host-local, portmap, …).",
    )
    pause_image: ImageReference | None = Field(
        default=None,
        description="The image of a pod's sandbox; without it the mirror's, or else `registry.k8s.io/pause:3.10`.",
    )
    endpoint: EndpointText | None = Field(
        default=None,
        description="Where clients outside the cluster reach an API server: a load balancer's name or address, with or "
        "without a port; without it, the first control node.",
    )
    certificate_names: tuple[Host, ...] = Field(
        default=(), description="More names and addresses of the API servers, for their certificates."
    )
    feature_gates: Mapping[Text, Flag] = Field(
        default_factory=dict, description="Kubernetes' feature gates, for all its programs: `Name: true`."
    )
    api_server: Component = Field(default_factory=Component, description="kube-apiserver.")
    controller_manager: Component = Field(default_factory=Component, description="kube-controller-manager.")
    scheduler: Component = Field(default_factory=Component, description="kube-scheduler.")
    audit: Flag = Field(
        default=True, description="Log who asked the API server for what, in /var/log/kubernetes/audit.log."
    )
    kubelet: Kubelet = Field(default_factory=Kubelet, description="The kubelet of every node.")
    proxy: KubeProxy = Field(default_factory=KubeProxy, description="kube-proxy on every node.")
    addons: Addons = Field(default_factory=Addons, description="What is applied as soon as the API answers.")
