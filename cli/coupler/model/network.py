"""The networks of pods and services, and flannel, which connects the pods of different nodes."""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Network
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field

from coupler.model.fields import Flag, Host, Network, Version, VersionText, count_of
from coupler.model.problem import problem
from coupler.model.section import Section

POD_SUBNET = 24
"""The length of the prefix of a node's part of the pods' network."""


class Backend(StrEnum):
    """How flannel carries packets between nodes (flannel's documentation, backends)."""

    VXLAN = "vxlan"
    HOST_GW = "host-gw"
    UDP = "udp"


def _pod_subnet(network: IPv4Network) -> IPv4Network:
    if network.prefixlen != POD_SUBNET:
        raise problem("pod-subnet-size", f"{network} is no /{POD_SUBNET}, which is what a node has for its pods")
    return network


PodSubnet: TypeAlias = Annotated[Network, AfterValidator(_pod_subnet)]


def _service_network(network: IPv4Network) -> IPv4Network:
    if not 12 <= network.prefixlen <= 28:  # noqa: PLR2004 (kube-apiserver: at most 20 bits for IPv4)
        message = f"{network} cannot be the network of services: kube-apiserver takes /12 to /28"
        raise problem("services-size", message)
    return network


ServiceNetwork: TypeAlias = Annotated[Network, AfterValidator(_service_network)]


class Flannel(Section):
    """flannel gives each node a /24 of the pod network and routes between them."""

    enabled: Flag = Field(default=True, description="Whether flanneld runs on the nodes.")
    version: VersionText = Field(default=Version("0.27.4"), description="The version of flanneld.")
    backend: Backend = Field(
        default=Backend.VXLAN,
        description="vxlan; host-gw where all nodes share one layer 2 network; udp as last resort.",
    )
    mtu: Annotated[int, Field(ge=576, le=9216), BeforeValidator(count_of)] | None = Field(
        default=None, description="The MTU of the pods' interfaces in bytes; without it, flannel finds it out."
    )


class Networking(Section):
    """The cluster's own networks. They overlap neither each other nor the nodes' addresses."""

    pods: Network = Field(default=IPv4Network("10.244.0.0/16"), description="The pods' network; each node gets a /24.")
    services: ServiceNetwork = Field(
        default=IPv4Network("10.96.0.0/16"), description="The services' virtual addresses."
    )
    domain: Host = Field(default="cluster.local", description="The DNS domain inside the cluster.")
    static_routes: Flag = Field(
        default=True,
        description="Without flannel: each node has a fixed /24 of the pods' network, and a route to every other's; "
        "false: the network between pods is yours to make.",
    )
    flannel: Flannel = Field(default_factory=Flannel, description="The network between pods of different nodes.")

    @property
    def routed(self) -> bool:
        """Whether routes that never change connect the pods of different nodes, in place of flannel."""
        return self.static_routes and not self.flannel.enabled
