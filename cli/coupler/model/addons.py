"""What the cluster applies to its own Kubernetes as soon as the API answers."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field

from coupler.model.fields import Flag, ImageReference, Name, VersionText, address_of, count_of
from coupler.model.manifests import ManifestSource
from coupler.model.problem import problem
from coupler.model.section import Section

COREDNS = "coredns"
KUBELET_ACCESS = "kubelet-access"
REGISTRATOR = "registrator"
BUILT_IN = (COREDNS, KUBELET_ACCESS, REGISTRATOR)
"""The addons that Coupler has; one of cluster.yaml cannot be called so."""


def _not_built_in(name: str) -> str:
    if name in BUILT_IN:
        raise problem("addon-name-taken", f"`{name}` is an addon of Coupler's own", f"call yours `my-{name}`")
    return name


AddonName: TypeAlias = Annotated[Name, AfterValidator(_not_built_in)]
NameServer: TypeAlias = Annotated[IPv4Address, BeforeValidator(address_of)]


_VERSIONS = {
    21: "1.8.0",
    22: "1.8.4",
    23: "1.8.6",
    25: "1.9.3",
    27: "1.10.1",
    29: "1.11.1",
    31: "1.11.3",
    33: "1.12.0",
    34: "1.12.1",
    35: "1.13.1",
}
"""The version of CoreDNS that kubeadm installs, from this minor version of Kubernetes on (CoreDNS-k8s_version.md of
github.com/coredns/deployment, and build/dependencies.yaml of Kubernetes since 1.34)."""


def upstream_coredns(minor: int, version: str | None) -> str:
    """Return upstream's image of CoreDNS in a version, or in the one for Kubernetes 1.`minor`."""
    fitting = _VERSIONS[max([since for since in _VERSIONS if since <= minor], default=min(_VERSIONS))]
    return f"registry.k8s.io/coredns/coredns:v{version or fitting}"


class CoreDns(Section):
    """CoreDNS answers for the names of services."""

    enabled: Flag | None = Field(
        default=None,
        description="Whether CoreDNS runs; without the key, unless an air-gapped mirror lacks its image.",
    )
    version: VersionText | None = Field(
        default=None, description="The version of upstream's image; without it, the one that kubeadm takes."
    )
    image: ImageReference | None = Field(
        default=None, description="The image; without it and without a version, the mirror's or else upstream's."
    )
    replicas: Annotated[int, Field(ge=1, le=100), BeforeValidator(count_of)] | None = Field(
        default=None, description="How many of it run; without it 2, and 1 where there is only one node."
    )
    upstreams: tuple[NameServer, ...] | None = Field(
        default=None,
        description="Name servers for all other names; without it those of the node, and with `[]` none.",
    )


class Addons(Section):
    """What is applied to Kubernetes as soon as the API answers, and removed when it is no longer here."""

    coredns: CoreDns = Field(default_factory=CoreDns, description="CoreDNS, for the names of services.")
    manifests: Mapping[AddonName, ManifestSource] = Field(
        default_factory=dict,
        description="Objects of your own, by a name: the path of a file of manifests, an object, or a list of them.",
    )
