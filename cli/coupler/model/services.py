"""What surrounds the cluster: Docker, proxies, load balancer, mirror, and builds of programs other than upstream's."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field

from coupler.model.fields import (
    Address,
    Bind,
    FilePath,
    Flag,
    Host,
    ImageReference,
    JsonObject,
    NoProxy,
    Sha256,
    Text,
    VersionText,
    WebUrl,
)
from coupler.model.files import MirrorFolderPath
from coupler.model.section import Section


class Docker(Section):
    """The Docker engine of the nodes."""

    options: JsonObject = Field(
        default_factory=dict,
        description="Becomes /etc/docker/daemon.json as it stands: numbers and `true` keep their type.",
    )


class Proxy(Section):
    """The proxy through which the nodes reach the outside world."""

    http: WebUrl | None = Field(default=None, description="For http:// URLs. No password: the cloud-config is public.")
    https: WebUrl | None = Field(default=None, description="For https:// URLs.")
    no_proxy: tuple[NoProxy, ...] = Field(
        default=(), description="Hosts, `.domains` and networks that are reached directly, beside the cluster's own."
    )


EVERYWHERE = frozenset({"*", "0.0.0.0", "[::]"})  # noqa: S104 - as ss and cluster.yaml write it
"""What stands for every address of a machine where something listens."""


class Balancer(StrEnum):
    """The load balancer that the registrator keeps in step."""

    HAPROXY = "haproxy"
    NGINX = "nginx"
    VULCAND = "vulcand"


class LoadBalancer(Section):
    """The load balancer on the nodes with the role lb."""

    kind: Balancer = Field(
        default=Balancer.HAPROXY,
        description="haproxy or nginx, on these nodes; or vulcand, which you run and which reads the cluster's etcd.",
    )
    image: ImageReference | None = Field(
        default=None,
        description="The image, one of the mirror's, that haproxy or nginx is taken from where the system has none.",
    )
    http: tuple[Bind, ...] = Field(default=("*:80",), description="Where HTTP is listened to, as ADDRESS:PORT.")
    https: tuple[Bind, ...] = Field(default=(), description="Where HTTP over TLS is listened to.")
    virtual_address: Address | None = Field(
        default=None,
        description="An address in the network of these nodes that one has, and another when that one cannot.",
    )
    announcements: Flag = Field(
        default=True, description="Balance what is announced below /services/ in the cluster's etcd."
    )
    domain: Host | None = Field(
        default=None, description="An announced service without a host of its own is served as NAME.DOMAIN, or as NAME."
    )
    kubernetes: Flag = Field(
        default=False, description="Balance what the cluster's own Kubernetes has, with a certificate for just that."
    )
    kubeconfig: FilePath | None = Field(
        default=None,
        description="Balance what another Kubernetes has: a kubeconfig with its keys in it, beside cluster.yaml.",
    )
    seal_key: FilePath | None = Field(
        default=None,
        description="With vulcand, for TLS: a file with the key that it is started with as -sealKey.",
    )


def _without_slash(url: str) -> str:
    return url.rstrip("/")


class Mirror(Section):
    """Where the nodes get programs from before they ask upstream: an air-gapped site, or the lab."""

    url: Annotated[WebUrl, AfterValidator(_without_slash)] = Field(
        description="The base URL; below it lies NAME/VERSION/ARCH/FILE."
    )
    folder: MirrorFolderPath | None = Field(
        default=None,
        description="The folder that `url` serves, relative to cluster.yaml. Its SHA256SUMS win over known checksums.",
    )
    only: Flag = Field(
        default=False, description="Never ask upstream, as at an air-gapped site: units wait for what the mirror lacks."
    )


class ArtifactOverride(Section):
    """Another build of a program, or one whose checksum Coupler does not know."""

    url: WebUrl | None = Field(
        default=None, description="Where the program, or the archive that holds it, is fetched from."
    )
    sha256: Sha256 | None = Field(default=None, description="The SHA-256 of what lies at the URL.")
    member: Text | None = Field(
        default=None,
        description="With `url`: the program's path inside the archive; without it, the URL is the program.",
    )
    version: VersionText | None = Field(default=None, description="The version, where it is not its section's.")
