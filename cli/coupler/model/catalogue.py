"""The programs that nodes need: which, from where, and with which checksum.

Most are needed by every node; the registrator, and a balancer that the system lacks, by the nodes with the role lb.

Where upstream has them is data, `catalogue.toml`, and so is what it published as SHA-256 sums, `checksums.txt`. A
checksum that is not known there is None, never a guess: `artifacts.NAME.sha256` of cluster.yaml, or the SHA256SUMS of a
mirror, supplies it.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coupler import __version__
from coupler.model.fields import VERSION
from coupler.model.services import ArtifactOverride
from coupler.model.system import Distribution

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from coupler.model.cluster import Cluster
    from coupler.model.source import KeyPath

_DATA: dict[str, dict[str, Any]] = tomllib.loads(
    Path(__file__).with_name("catalogue.toml").read_text(encoding="utf-8")
)["program"]
PROGRAMS: tuple[str, ...] = tuple(_DATA)
"""Every program that some cluster needs."""
REGISTRATOR = "registrator"
"""The program that keeps the load balancer in step: a folder, of this very version."""
WHOLE = "."
"""The `member` of an archive that is unpacked as a whole."""
IMAGE = "@image"
"""The `member` of an archive that is a container image: the program of this name in it, with the image's libraries."""


@dataclass(frozen=True)
class Artifact:
    """A program, or an archive of programs, that a node fetches.

    `urls` are tried in order and all hold the same bytes, whose SHA-256 is `sha256` (None: not known). `target` is the
    path of the program; `member` its path inside the archive. A member of "." means that the whole archive is unpacked
    into the folder `target`, IMAGE that it is looked for in a container image, whose reference is the `version` then,
    and None that the URL is the program itself. Without `urls` no server is known to have it.
    """

    name: str
    version: str
    target: str
    urls: tuple[str, ...]
    sha256: str | None
    member: str | None


@dataclass(frozen=True)
class Source:
    """A version of a program, for an architecture: what upstream has of it, and where it lies in a mirror.

    `file` is what upstream calls it, `url` where it is (None: nowhere), `member` and `sha256` as with an `Artifact`.
    `places` are the paths below a mirror's folder where it may be, the first to be found wins.
    """

    name: str
    version: str
    arch: str
    component: str
    file: str
    url: str | None
    member: str | None
    sha256: str | None

    @property
    def places(self) -> tuple[str, ...]:
        """Where a mirror may have it: below its own name or its component's, bare or as upstream's file."""
        folders = [f"{folder}/{self.version}/{self.arch}" for folder in (self.name, self.component)]
        return tuple(dict.fromkeys(f"{folder}/{file}" for folder in folders for file in (self.name, self.file)))

    @property
    def place(self) -> str:
        """Where upstream's file belongs in a mirror."""
        return f"{self.component}/{self.version}/{self.arch}/{self.file}"

    @property
    def bare_place(self) -> str:
        """Where the program itself belongs in a mirror."""
        return f"{self.name}/{self.version}/{self.arch}/{self.name}"

    def within(self, checksums: Iterable[str]) -> str | None:
        """Return the path at which a mirror that has these paths has it, None where it lacks it."""
        return next((place for place in self.places if place in checksums), None)

    def member_at(self, place: str) -> str | None:
        """Return the program's path inside the file at a place of the mirror, None where the file is the program."""
        bare = place.endswith(f"/{self.name}") and self.name != self.file
        return None if bare else self.member


def source_of(name: str, version: str, arch: str) -> Source:
    """Return what the catalogue knows of a version of a program of `PROGRAMS`."""
    program = _DATA[name]
    older = program.get("older")
    if older and _numbers(version) < _numbers(older["than"]):
        program = {**program, **older}
    names = {"version": version, "arch": arch}
    url = program["url"].format(**names) if "url" in program else None
    file = url.rpartition("/")[2] if url else program["file"]
    member = program["member"].format(**names) if "member" in program else None
    sha256 = _published().get(f"{program.get('checksums', name)}/{version}/{arch}")
    return Source(name, version, arch, program["component"], file, url, member, sha256)


def component_of(name: str) -> str:
    """Return what a program of `PROGRAMS` is part of: its versions are that component's."""
    return str(_DATA[name]["component"])


def programs_of(component: str) -> tuple[str, ...]:
    """Return the programs of a component, in the order of the catalogue."""
    return tuple(name for name in PROGRAMS if component_of(name) == component)


def newest(versions: Iterable[str]) -> str | None:
    """Return the newest of some versions; `1.36.0-rc.1` is older than `1.36.0`."""

    def age(version: str) -> tuple[list[int], bool, list[int]]:
        release, _, candidate = version.partition("-")
        return _numbers(release), not candidate, _numbers(candidate)

    return max(versions, key=age, default=None)


@cache
def _published() -> Mapping[str, str]:
    lines = Path(__file__).with_name("checksums.txt").read_text(encoding="utf-8").splitlines()
    return {line[66:]: line[:64] for line in lines if not line.startswith("#")}


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


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
    return _VERSION_KEYS.get(component_of(program), ("artifacts", _DATA[program].get("with", program)))


def artifacts_of(cluster: Cluster) -> tuple[Artifact, ...]:
    """Return the artifacts that the cluster needs, in the order of the catalogue."""
    versions = _versions(cluster)
    return tuple(
        _artifact(cluster, name, _optional_version(cluster, name) if optional else versions[program["component"]])
        for name, program in _DATA.items()
        if (optional := _asked_for(cluster, name)) or (program["component"] in versions and "optional" not in program)
    )


def balancing_artifacts_of(cluster: Cluster) -> tuple[Artifact, ...]:
    """Return what the nodes with the role lb need: the registrator, and a balancer only where `artifacts` names it."""
    if not cluster.load_balancer:
        return ()
    kind = str(cluster.load_balancer.kind)
    if kind not in PROGRAMS:
        balancer = []
    elif kind in cluster.artifacts:
        balancer = [_artifact(cluster, kind, "")]
    else:
        balancer = [_of_image(cluster, kind, cluster.load_balancer.image)] if cluster.load_balancer.image else []
    return (_artifact(cluster, REGISTRATOR, __version__), *balancer)


def _of_image(cluster: Cluster, name: str, reference: str) -> Artifact:
    """Return a program that is taken from an image of the mirror."""
    image = next((image for image in cluster.mirrored_images if reference in image.references), None)
    urls = (f"{cluster.mirror.url}/{image.place}",) if image and cluster.mirror else ()
    return Artifact(name, reference, str(_DATA[name]["target"]), urls, image.sha256 if image else None, IMAGE)


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


def _asked_for(cluster: Cluster, name: str) -> bool:
    """Whether `artifacts` names this optional program, or the one that it comes with."""
    program = _DATA[name]
    return "optional" in program and any(key in cluster.artifacts for key in (name, program.get("with", name)))


def _optional_version(cluster: Cluster, name: str) -> str:
    """Return the version that cluster.yaml gives, else the catalogue's, else the newest that the mirror has."""
    leader = _DATA[name].get("with", name)
    override = cluster.artifacts[leader].version if leader in cluster.artifacts else None
    if override or "version" in _DATA[leader]:
        return str(override or _DATA[leader]["version"])
    return newest(versions_in(_checksums(cluster), name, str(cluster.os.arch))) or ""


def versions_in(checksums: Iterable[str], name: str, arch: str) -> set[str]:
    """Return the versions of a program that a mirror has for an architecture; `checksums` are the mirror's paths."""
    folders = {name, component_of(name)}
    parts = [place.split("/") for place in checksums]
    versions = {part[1] for part in parts if len(part) == 4 and part[0] in folders and part[2] == arch}  # noqa: PLR2004
    return {
        version
        for version in versions
        if VERSION.fullmatch(version) and source_of(name, version, arch).within(checksums)
    }


def whole_versions_in(checksums: Iterable[str], component: str, arch: str, *, without: str = "") -> set[str]:
    """Return the versions of which a mirror has all programs of a component, those aside that are optional.

    `without` is a program that may be missing.
    """
    names = [name for name in programs_of(component) if "optional" not in _DATA[name] and name != without]
    return set.intersection(*(versions_in(checksums, name, arch) for name in names or programs_of(component)))


def _checksums(cluster: Cluster) -> Mapping[str, str]:
    return cluster.mirror.folder.checksums if cluster.mirror and cluster.mirror.folder else {}


def _artifact(cluster: Cluster, name: str, version: str) -> Artifact:
    override = cluster.artifacts.get(name) or ArtifactOverride()
    is_kubernetes = component_of(name) == "kubernetes"
    version = str(cluster.version_of(name) if is_kubernetes else override.version or version)
    target = str(_DATA[name]["target"])
    if override.url:
        whole = WHOLE if _DATA[name].get("member") == WHOLE else None
        return Artifact(name, version, target, (override.url,), override.sha256, override.member or whole)
    source = source_of(name, version, str(cluster.os.arch))
    upstream = (source.url,) if source.url else ()
    known = override.sha256 or source.sha256
    if not (cluster.mirror and version):
        return Artifact(name, version, target, upstream if version else (), known, source.member)
    checksums = _checksums(cluster)
    place = source.within(checksums)
    if place:
        mirrored = (f"{cluster.mirror.url}/{place}",)
        same = checksums[place] == known
        urls = (*mirrored, *upstream) if same and not cluster.mirror.only else mirrored
        return Artifact(name, version, target, urls, checksums[place], source.member_at(place))
    guess = f"{cluster.mirror.url}/{source.place}"
    if cluster.mirror.only:
        only = () if cluster.mirror.folder else (guess,)
        return Artifact(name, version, target, only, known, source.member)
    return Artifact(name, version, target, (guess, *upstream), known, source.member)
