"""The programs that nodes need: which, from where, and with which checksum.

Most are needed by every node; the registrator, and a balancer that the system lacks, by the nodes with the role lb.

Upstream's URLs and published SHA-256 sums are data, `catalogue.toml`. A checksum that is not known there is None, never
a guess: `artifacts.NAME.sha256` of cluster.yaml, or the SHA256SUMS of a mirror, supplies it.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coupler import __version__
from coupler.model.services import ArtifactOverride
from coupler.model.system import Distribution

if TYPE_CHECKING:
    from coupler.model.cluster import Cluster
    from coupler.model.source import KeyPath

_DATA: dict[str, Any] = tomllib.loads(Path(__file__).with_name("catalogue.toml").read_text(encoding="utf-8"))
PROGRAMS: tuple[str, ...] = tuple(_DATA["program"])
"""Every program that some cluster needs."""
REGISTRATOR = "registrator"
"""The program that keeps the load balancer in step: a folder, of this very version."""


@dataclass(frozen=True)
class Artifact:
    """A program, or an archive of programs, that a node fetches.

    `urls` are tried in order and all hold the same bytes, whose SHA-256 is `sha256` (None: not known). `target` is the
    path of the program; `member` its path inside the archive. A member of "." means that the whole archive is unpacked
    into the folder `target`, and None that the URL is the program itself. Without `urls` no server is known to have it.
    """

    name: str
    version: str
    target: str
    urls: tuple[str, ...]
    sha256: str | None
    member: str | None


_VERSION_KEYS: dict[str, KeyPath] = {
    "etcd": ("etcd", "version"),
    "flannel": ("network", "flannel", "version"),
    "fleet": ("fleet", "version"),
    "kubernetes": ("kubernetes", "version"),
    "cni-plugins": ("kubernetes", "cni_plugins_version"),
}


def version_key(cluster: Cluster, program: str) -> KeyPath:
    """Return the key of cluster.yaml that sets the version of a program of `PROGRAMS`."""
    override = cluster.artifacts.get(program)
    if override and override.version:
        return ("artifacts", program, "version")
    if program == "kubelet" and cluster.kubernetes.kubelet.version:
        return ("kubernetes", "kubelet", "version")
    if program == "kube-proxy" and cluster.kubernetes.proxy.version:
        return ("kubernetes", "proxy", "version")
    return _VERSION_KEYS[_DATA["program"][program]["component"]]


def artifacts_of(cluster: Cluster) -> tuple[Artifact, ...]:
    """Return the artifacts that the cluster needs, in the order of the catalogue."""
    versions = _versions(cluster)
    return tuple(
        _artifact(cluster, name, program, versions[program["component"]])
        for name, program in _DATA["program"].items()
        if program["component"] in versions
    )


def balancing_artifacts_of(cluster: Cluster) -> tuple[Artifact, ...]:
    """Return what the nodes with the role lb need: the registrator, and a balancer only where `artifacts` names it."""
    if not cluster.load_balancer:
        return ()
    kind = str(cluster.load_balancer.kind)
    names = [REGISTRATOR, *([kind] if kind in PROGRAMS and kind in cluster.artifacts else [])]
    return tuple(
        _artifact(cluster, name, _DATA["program"][name], __version__ if name == REGISTRATOR else "") for name in names
    )


def _versions(cluster: Cluster) -> dict[str, str]:
    """Return component → version of what the cluster runs and the image does not ship."""
    ships_own = cluster.os.distribution is Distribution.CONTAINER_LINUX
    kubernetes = cluster.kubernetes.enabled
    wanted = (
        ("etcd", cluster.etcd.version, not ships_own),
        ("flannel", cluster.network.flannel.version, cluster.network.flannel.enabled and not ships_own),
        ("fleet", cluster.fleet.version, cluster.fleet.enabled and not ships_own),
        ("kubernetes", cluster.kubernetes.version, kubernetes),
        ("cni-plugins", cluster.kubernetes.cni_plugins_version, kubernetes),
    )
    return {component: str(version) for component, version, runs in wanted if runs}


def _artifact(cluster: Cluster, name: str, program: dict[str, Any], version: str) -> Artifact:
    override = cluster.artifacts.get(name) or ArtifactOverride()
    is_kubernetes = program["component"] == "kubernetes"
    version = str(cluster.version_of(name) if is_kubernetes else override.version or version)
    target: str = program["target"]
    if override.url:
        whole = program.get("member") if program.get("member") == "." else None
        return Artifact(name, version, target, (override.url,), override.sha256, override.member or whole)
    arch = str(cluster.os.arch)
    names = {"version": version, "arch": arch}
    upstream = (program["url"].format(**names),) if "url" in program else ()
    member = program["member"].format(**names) if "member" in program else None
    table = _DATA["sha256"].get(program.get("checksums", name), {})
    known = override.sha256 or table.get(arch, {}).get(version)
    if not cluster.mirror:
        return Artifact(name, version, target, upstream, known, member)

    file = upstream[0].rpartition("/")[2] if upstream else program["file"]
    places = [f"{folder}/{version}/{arch}/{kind}" for folder in (name, program["component"]) for kind in (name, file)]
    checksums = cluster.mirror.folder.checksums if cluster.mirror.folder else {}
    for place in places:
        if place in checksums:
            mirrored = (f"{cluster.mirror.url}/{place}",)
            same = checksums[place] == known
            bare = place.endswith(f"/{name}")
            urls = (*mirrored, *upstream) if same and not cluster.mirror.only else mirrored
            return Artifact(name, version, target, urls, checksums[place], None if bare and name != file else member)
    if cluster.mirror.only:
        only = () if cluster.mirror.folder else (f"{cluster.mirror.url}/{places[-1]}",)
        return Artifact(name, version, target, only, known, member)
    return Artifact(name, version, target, (f"{cluster.mirror.url}/{places[-1]}", *upstream), known, member)
