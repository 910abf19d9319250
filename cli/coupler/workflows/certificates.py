"""Which certificates a cluster has, and the folder that keeps them.

Two trees: etcd's, and Kubernetes' with the one for its front proxy, as
https://kubernetes.io/docs/setup/best-practices/certificates/ asks. An authority's key never leaves the operator's
machine; a node gets the keys that it needs and no other's.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from coupler.adapters import pki
from coupler.model import Cluster, Node, Role
from coupler.workflows.workspace import read, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

LOCALHOST = IPv4Address("127.0.0.1")
NODE_FOLDER = "etc/coupler/pki"
"""Where a node keeps its part, from its root."""

SIGNING_KEY = "kubernetes/service-account.key"
"""What service accounts' tokens are signed with."""

PUBLIC_KEY = "kubernetes/service-account.pub"
"""Its public half, by which they are verified."""

ENCRYPTION = "kubernetes/encryption.yaml"
"""How the API server encrypts what it stores: with the key in it."""

_ENCRYPTION_KEY_BYTES = 32


@dataclass(frozen=True)
class Certificate:
    """A certificate of the cluster: `name` as `etcd/server`, whose `authority` signs it, for one node or for all."""

    name: str
    authority: str
    profile: pki.Profile
    node: str | None = None

    @property
    def path(self) -> str:
        """Where it lies below the folder, without `.crt` or `.key`."""
        return f"nodes/{self.node}/{self.name}" if self.node else self.name


def authorities(cluster: Cluster) -> tuple[str, ...]:
    """Return the certificate authorities that the cluster needs."""
    etcd = ("etcd/ca",) if cluster.etcd.tls else ()
    return etcd + (("kubernetes/ca", "kubernetes/front-proxy-ca") if cluster.kubernetes.enabled else ())


def certificates_of(cluster: Cluster) -> Iterator[Certificate]:
    """Yield every certificate of the cluster, in the order of its nodes."""
    for node in cluster.nodes:
        yield from certificates_of_node(cluster, node)
    if cluster.kubernetes.enabled:
        yield Certificate("kubernetes/admin", "kubernetes/ca", pki.Profile("admin", ("system:masters",), client=True))


def certificates_of_node(cluster: Cluster, node: Node) -> Iterator[Certificate]:
    """Yield the certificates that a node has by its roles: with their keys, it gets these and no other's."""
    if cluster.etcd.tls:
        yield from _etcd(cluster, node)
    if cluster.kubernetes.enabled:
        yield from _kubernetes(cluster, node)


def _etcd(cluster: Cluster, node: Node) -> Iterator[Certificate]:
    def certificate(kind: str, profile: pki.Profile) -> Certificate:
        return Certificate(f"etcd/{kind}", "etcd/ca", profile, node.name)

    if node in cluster.etcd_members:
        dns, addresses = ("localhost", node.name), (LOCALHOST, node.address)
        yield certificate(
            "server", pki.Profile(node.name, dns_names=dns, addresses=addresses, server=True, client=True)
        )
        yield certificate("peer", pki.Profile(node.name, dns_names=dns, addresses=addresses, server=True, client=True))
    yield certificate("client", pki.Profile(node.name, client=True))
    if cluster.load_balancer and Role.LB in node.roles:
        yield certificate("registrator", pki.Profile("registrator", client=True))


def _kubernetes(cluster: Cluster, node: Node) -> Iterator[Certificate]:
    def certificate(kind: str, profile: pki.Profile, authority: str = "ca") -> Certificate:
        return Certificate(f"kubernetes/{kind}", f"kubernetes/{authority}", profile, node.name)

    if Role.CONTROL in node.roles:
        more = _outside_names(cluster)
        names = ("localhost", node.name, *_service_names(cluster), *(name for name in more if isinstance(name, str)))
        addresses = (LOCALHOST, cluster.network.services[1], node.address)
        server = pki.Profile(
            "kube-apiserver",
            dns_names=tuple(dict.fromkeys(names)),
            addresses=tuple(dict.fromkeys((*addresses, *(name for name in more if not isinstance(name, str))))),
            server=True,
        )
        yield certificate("apiserver", server)
        yield certificate(
            "apiserver-kubelet-client", pki.Profile("kube-apiserver-kubelet-client", ("system:masters",), client=True)
        )
        yield certificate("front-proxy-client", pki.Profile("front-proxy-client", client=True), "front-proxy-ca")
        yield certificate("controller-manager", pki.Profile("system:kube-controller-manager", client=True))
        yield certificate("scheduler", pki.Profile("system:kube-scheduler", client=True))
        yield certificate("addons", pki.Profile("coupler-addons", ("system:masters",), client=True))
    if cluster.load_balancer and cluster.load_balancer.kubernetes and Role.LB in node.roles:
        yield certificate("registrator", pki.Profile("coupler-registrator", client=True))
    kubelet = pki.Profile(
        f"system:node:{node.name}",
        ("system:nodes",),
        dns_names=(node.name,),
        addresses=(node.address,),
        server=True,
        client=True,
    )
    yield certificate("kubelet", kubelet)
    yield certificate("proxy", pki.Profile("system:kube-proxy", client=True))


def _service_names(cluster: Cluster) -> tuple[str, ...]:
    """Return the names of the service by which pods ask for the API servers."""
    service = "kubernetes.default.svc"
    return "kubernetes", "kubernetes.default", service, f"{service}.{cluster.network.domain}"


def _outside_names(cluster: Cluster) -> list[str | IPv4Address]:
    """Return the names and addresses by which clients outside the cluster ask for its API servers."""
    settings = cluster.kubernetes
    hosts = [*([settings.endpoint.host] if settings.endpoint else []), *settings.certificate_names]
    return [IPv4Address(host) if host.replace(".", "").isdigit() else host for host in hosts]


def encryption_at_rest(key: bytes) -> bytes:
    """Return an EncryptionConfiguration by which Secrets are stored encrypted with `key`, of 32 bytes.

    secretbox is in every version since 1.21, and strong by Kubernetes' documentation; `identity` comes last, so
    that what was stored before is still read
    (https://kubernetes.io/docs/tasks/administer-cluster/encrypt-data/).
    """
    named = {"name": "key-1", "secret": base64.b64encode(key).decode("ascii")}
    configuration = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [
            {"resources": ["secrets"], "providers": [{"secretbox": {"keys": [named]}}, {"identity": {}}]},
        ],
    }
    return json.dumps(configuration, indent=2).encode("ascii") + b"\n"


Chosen = Callable[[Certificate], bool]
"""Which certificates to make anew."""


def _none(_: Certificate) -> bool:
    return False


@dataclass(frozen=True)
class Missing:
    """What has to be made, and why."""

    path: str
    reason: str


class Store:
    """The operator's folder of certificates and keys."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self._folder = folder
        self._cluster = cluster

    def missing(self, now: datetime, again: Chosen = _none) -> Iterator[Missing]:
        """Yield what has to be made: what is not there, expires soon, or says something else than it should.

        Those `again` are made anew though they would still serve.
        """
        for authority in authorities(self._cluster):
            if not self._pair(authority):
                yield Missing(authority, "there is none")
        for name in self._secrets():
            if not read(self._folder / name):
                yield Missing(name, "there is none")
        for certificate in certificates_of(self._cluster):
            reason = self.reason(certificate, now) or ("asked for" if again(certificate) else None)
            if reason:
                yield Missing(certificate.path, reason)

    def make(self, now: datetime, again: Chosen = _none) -> list[str]:
        """Make what is `missing`; return its paths.

        An interrupted call leaves whole pairs, and the next one goes on.
        """
        made = []
        for authority in authorities(self._cluster):
            if not self._pair(authority):
                self._write(authority, pki.new_authority(f"{self._cluster.name} {authority}", now))
                made.append(authority)
        for name, make in self._secrets().items():
            if not read(self._folder / name):
                make()
                made.append(name)
        for certificate in certificates_of(self._cluster):
            if self.reason(certificate, now) or again(certificate):
                authority_pair = self._pair(certificate.authority)
                if authority_pair:
                    self._write(certificate.path, pki.issue(certificate.profile, authority_pair, now))
                    made.append(certificate.path)
        return made

    def files_for(self, node: Node) -> dict[str, tuple[bytes, int]]:
        """Return what a node gets: the path from its root, the content and the mode of each file."""
        files: dict[str, tuple[bytes, int]] = {}
        shared = [f"{authority}.crt" for authority in authorities(self._cluster)]
        if self._cluster.kubernetes.enabled and Role.CONTROL in node.roles:
            shared += [SIGNING_KEY, PUBLIC_KEY, ENCRYPTION]
        names = [(self._folder / name, name) for name in shared]
        for certificate in certificates_of_node(self._cluster, node):
            for kind in ("crt", "key"):
                names.append((self._folder / f"{certificate.path}.{kind}", f"{certificate.name}.{kind}"))
        for path, name in names:
            secret = name.endswith(".key") or name == ENCRYPTION
            files[f"{NODE_FOLDER}/{name}"] = (path.read_bytes(), 0o600 if secret else 0o644)
        return files

    def _secrets(self) -> dict[str, Callable[[], None]]:
        """Return how the secrets that are no certificates are made, by their files. Each is made once, and stays."""
        if not self._cluster.kubernetes.enabled:
            return {}
        return {
            SIGNING_KEY: self._make_signing_key,
            PUBLIC_KEY: self._make_public_key,
            ENCRYPTION: self._make_encryption,
        }

    def _make_signing_key(self) -> None:
        (self._folder / PUBLIC_KEY).unlink(missing_ok=True)
        write(self._folder / SIGNING_KEY, pki.new_signing_key(), 0o600)

    def _make_public_key(self) -> None:
        write(self._folder / PUBLIC_KEY, pki.public_half((self._folder / SIGNING_KEY).read_bytes()), 0o644)

    def _make_encryption(self) -> None:
        write(self._folder / ENCRYPTION, encryption_at_rest(secrets.token_bytes(_ENCRYPTION_KEY_BYTES)), 0o600)

    def certificate(self, name: str) -> bytes | None:
        """Return the certificate with this path, as PEM, None where there is none."""
        return self._read(name, "crt")

    def pair(self, name: str) -> pki.KeyPair | None:
        """Return the certificate with this path and its key, None where one of them is missing."""
        return self._pair(name)

    def reason(self, certificate: Certificate, now: datetime) -> str | None:
        """Return why a certificate has to be made, None where it serves."""
        authority = self._pair(certificate.authority)
        if not authority:
            return "its authority is new"
        if self._read(certificate.path, "key") is None:
            return "its key is missing"
        return pki.reason_to_issue(self._read(certificate.path, "crt"), certificate.profile, authority, now)

    def _pair(self, name: str) -> pki.KeyPair | None:
        certificate, key = self._read(name, "crt"), self._read(name, "key")
        return pki.KeyPair(certificate, key) if certificate and key else None

    def _read(self, name: str, kind: str) -> bytes | None:
        return read(self._folder / f"{name}.{kind}")

    def _write(self, name: str, pair: pki.KeyPair) -> None:
        """Write the key first: a certificate that is there always has its key."""
        (self._folder / f"{name}.crt").unlink(missing_ok=True)
        write(self._folder / f"{name}.key", pair.key, 0o600)
        write(self._folder / f"{name}.crt", pair.certificate, 0o644)
