"""Which versions a lab's cluster.yaml asks for: those that its mirror has.

Each comes with a sentence that says why, for the comment above it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coupler.model.catalogue import newest, programs_of, versions_in, whole_versions_in

if TYPE_CHECKING:
    from collections.abc import Iterable

_KUBECTL = "kubectl"
_EXTRAS = ("locksmithctl", "crictl")
"""What Flatcar ships, or people like to have: lab machines get it where the mirror has it."""


@dataclass(frozen=True)
class Chosen:
    """A version, and why; without one, why there is none."""

    version: str | None
    why: str


@dataclass(frozen=True)
class Versions:
    """The versions for a cluster.yaml. `extras`: more programs, which `artifacts` has to name, by name.

    `applies` says whether there is a kubectl for that Kubernetes, by which its nodes apply addons.
    """

    etcd: Chosen
    flannel: Chosen
    fleet: Chosen
    kubernetes: Chosen
    cni_plugins: Chosen
    extras: dict[str, Chosen]
    applies: bool


def choose(checksums: Iterable[str], arch: str) -> Versions:
    """Return what a mirror that has the files `checksums` offers for machines of an architecture."""
    places = frozenset(checksums)
    kubernetes, kubectl = _kubernetes(places, arch)
    extras = {
        name: Chosen(version, "The mirror has it.") for name in _EXTRAS if (version := _newest_of(places, name, arch))
    }
    return Versions(
        etcd=_etcd(places, arch),
        flannel=_flannel(places, arch),
        fleet=_simple(places, "fleet", "fleet", arch),
        kubernetes=kubernetes,
        cni_plugins=_simple(places, "cni-plugins", "CNI plugins", arch),
        extras={**extras, **({_KUBECTL: kubectl} if kubectl else {})},
        applies=bool(kubectl) or kubernetes.version in versions_in(places, _KUBECTL, arch),
    )


def _etcd(places: frozenset[str], arch: str) -> Chosen:
    found = whole_versions_in(places, "etcd", arch)
    usable = [version for version in found if (3, 0) <= _minor(version) < (3, 6)]
    if usable:
        return Chosen(
            newest(usable), "The newest in the mirror below 3.6, which has no v2 API for fleet and locksmith."
        )
    return Chosen(newest(found), "The newest in the mirror; the lab knows none below 3.6 there.")


def _flannel(places: frozenset[str], arch: str) -> Chosen:
    version = newest(whole_versions_in(places, "flannel", arch))
    if version is None:
        return Chosen(None, "The mirror has no flanneld.")
    old = "; before 0.18 flannel speaks etcd's v2 API" if _minor(version) < (0, 18) else ""
    return Chosen(version, f"The newest in the mirror{old}.")


def _simple(places: frozenset[str], component: str, called: str, arch: str) -> Chosen:
    version = newest(whole_versions_in(places, component, arch))
    return Chosen(version, "The newest in the mirror." if version else f"The mirror has no {called}.")


def _kubernetes(places: frozenset[str], arch: str) -> tuple[Chosen, Chosen | None]:
    """Return the version of Kubernetes, and that of kubectl where it is another one."""
    seen = newest({version for name in programs_of("kubernetes") for version in versions_in(places, name, arch)})
    lacks = f"of {seen} it lacks {', '.join(_lacking(places, seen, arch))}" if seen else ""
    whole = newest(whole_versions_in(places, "kubernetes", arch))
    if whole:
        more = "" if seen == whole else f"; {lacks}"
        return Chosen(whole, f"The newest in the mirror of which all programs are there{more}."), None
    partly = newest(whole_versions_in(places, "kubernetes", arch, without=_KUBECTL))
    if partly:
        near = newest(found for found in versions_in(places, _KUBECTL, arch) if _near(found, partly))
        why = "The newest in the mirror of which all programs but kubectl are there."
        return Chosen(partly, why), Chosen(
            near, f"The mirror has none of {partly}; this one fits, too."
        ) if near else None
    return Chosen(None, f"The mirror has no Kubernetes{f' as a whole: {lacks}' if seen else ''}."), None


def _lacking(places: frozenset[str], version: str, arch: str) -> list[str]:
    return [name for name in programs_of("kubernetes") if version not in versions_in(places, name, arch)]


def _near(one: str, other: str) -> bool:
    """Whether kubectl of one version may speak to an API server of another (kubernetes.io, version skew policy)."""
    return _minor(one)[0] == _minor(other)[0] and abs(_minor(one)[1] - _minor(other)[1]) <= 1


def _newest_of(places: frozenset[str], name: str, arch: str) -> str | None:
    return newest(versions_in(places, name, arch))


def _minor(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)
