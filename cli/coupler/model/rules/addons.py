"""Rules about addons: nothing is applied twice, and what runs has an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coupler.model.rules.issue import Issue, error, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coupler.model.cluster import Cluster

_ADDONS = ("kubernetes", "addons")


def one_manifest_each(cluster: Cluster) -> Iterator[Issue]:
    """Of two manifests with the same object, the one applied last would win, and the next run turn it back."""
    seen: dict[tuple[str, str, str, str], str] = {}
    for name, manifest in cluster.kubernetes.addons.manifests.items():
        for found in manifest.objects:
            if found.key in seen:
                message = f"{found.text()} is in `{seen[found.key]}` too"
                yield error("object-twice", (*_ADDONS, "manifests", name), message, "leave it in one of them")
            seen[found.key] = name


def images(cluster: Cluster) -> Iterator[Issue]:
    """An air-gapped node gets the images of its mirror and no others."""
    if not (cluster.kubernetes.enabled and cluster.lacks_coredns):
        return
    asked = cluster.kubernetes.addons.coredns.enabled
    if asked is False:
        return
    message = f"the mirror has no image {cluster.coredns_image}, and nodes ask nobody else: "
    message += "its pods would never start" if asked else "CoreDNS is left out, so pods find no service by name"
    hint = "cluster mirror add-image FILE; or set it to false"
    yield warning("coredns-without-image", (*_ADDONS, "coredns", "enabled"), message, hint)


RULES = (one_manifest_each, images)
