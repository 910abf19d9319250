"""Archives of images, in both layouts: what they are called, and whether they are all there."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from tests.archives import docker_files, tar

from coupler.errors import CouplerError, UsageError
from coupler.mirror.archives import copy, examine, file_name, normalized

if TYPE_CHECKING:
    from pathlib import Path

LAYER = b"a layer" * 100


def docker(*tags: str, arch: str = "amd64", without: str = "") -> bytes:
    files = docker_files(tags, {"architecture": arch, "os": "linux"}, {"l/layer.tar": LAYER})
    return tar({name: content for name, content in files.items() if name != without})


class Oci:
    """An archive in OCI's layout that grows blob by blob."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    def blob(self, content: bytes, **more: Any) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        self.blobs[f"blobs/sha256/{digest}"] = content
        return {"digest": f"sha256:{digest}", "size": len(content), **more}

    def image(self, arch: str = "amd64", **more: Any) -> dict[str, Any]:
        config = self.blob(json.dumps({"architecture": arch}).encode())
        manifest = {"schemaVersion": 2, "config": config, "layers": [self.blob(LAYER)]}
        return self.blob(json.dumps(manifest).encode(), **more)

    def archive(self, *manifests: dict[str, Any]) -> bytes:
        index = json.dumps({"schemaVersion": 2, "manifests": list(manifests)}).encode()
        return tar({"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": index, **self.blobs})


REF = "org.opencontainers.image.ref.name"
NAME = "io.containerd.image.name"


@pytest.fixture
def saved(tmp_path: Path) -> Any:
    def save(content: bytes) -> Path:
        (tmp_path / "image.tar").write_bytes(content)
        return tmp_path / "image.tar"

    return save


def test_docker_archive_has_its_tags(saved: Any) -> None:
    found = examine(saved(docker("busybox:1.36", "registry.example.org:5000/team/app:2"))).references
    assert found == {"amd64": ("docker.io/library/busybox:1.36", "registry.example.org:5000/team/app:2")}
    assert examine(saved(docker("app:1", arch="arm64"))).references == {"arm64": ("docker.io/library/app:1",)}


def test_compressed_archive_becomes_a_plain_one(saved: Any) -> None:
    file = saved(gzip.compress(docker("app:1")))
    target = io.BytesIO()
    copy(file, examine(file), target)
    with tarfile.open(fileobj=io.BytesIO(target.getvalue()), mode="r:") as plain:
        assert plain.extractfile("l/layer.tar").read() == LAYER  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("annotations", "reference"),
    [
        ({NAME: "docker.io/library/app:1", REF: "1"}, "docker.io/library/app:1"),
        ({REF: "registry.k8s.io/pause:3.10"}, "registry.k8s.io/pause:3.10"),
        ({REF: "app:1"}, "docker.io/library/app:1"),
    ],
)
def test_oci_archive_has_its_names(saved: Any, annotations: dict[str, str], reference: str) -> None:
    oci = Oci()
    file = saved(oci.archive(oci.image(annotations=annotations)))
    found = examine(file)
    assert found.references == {"amd64": (reference,)}
    target = io.BytesIO()
    copy(file, found, target)
    saved(target.getvalue())
    with tarfile.open(file) as archive:
        index = json.load(archive.extractfile("index.json"))  # type: ignore[arg-type]
    assert index["manifests"][0]["annotations"][NAME] == reference, "containerd gives it the whole name"


def test_oci_archive_of_several_architectures(saved: Any) -> None:
    oci = Oci()
    both = {"schemaVersion": 2, "manifests": [oci.image("amd64"), oci.image("arm64"), oci.image("unknown")]}
    absent = {"digest": f"sha256:{'0' * 64}", "size": 1}
    both["manifests"].append(absent)  # type: ignore[attr-defined]
    index = oci.blob(json.dumps(both).encode(), annotations={REF: "example.org/app:1"})
    assert examine(saved(oci.archive(index))).references == {
        "amd64": ("example.org/app:1",),
        "arm64": ("example.org/app:1",),
    }


@pytest.mark.parametrize("annotations", [{}, {REF: "latest"}])
def test_image_without_a_name_needs_one(saved: Any, annotations: dict[str, str]) -> None:
    oci = Oci()
    for content in (docker(), oci.archive(oci.image(annotations=annotations))):
        with pytest.raises(CouplerError) as caught:
            examine(saved(content))
        assert "--name NAME:TAG" in str(caught.value.next_step)
        file = saved(content)
        named = examine(file, "app:2")
        assert named.references == {"amd64": ("docker.io/library/app:2",)}
        target = io.BytesIO()
        copy(file, named, target)
        assert examine(saved(target.getvalue())).references == named.references


def test_half_archives_are_refused(saved: Any) -> None:
    oci = Oci()
    whole = oci.archive(oci.image(annotations={REF: "example.org/app:1"}))
    corrupt = whole.replace(LAYER, LAYER[:-1] + b"!")
    lost = {"digest": f"sha256:{'1' * 64}", "annotations": {REF: "example.org/app:1"}}
    halves = [
        corrupt,
        whole[: len(whole) // 2],
        gzip.compress(docker("app:1"), mtime=0)[:200],
        docker("app:1", without="l/layer.tar"),
        docker("app:1", without="c.json"),
        oci.archive(lost),
    ]
    for content in halves:
        with pytest.raises(CouplerError) as caught:
            examine(saved(content))
        assert "half" in caught.value.what or "read to its end" in caught.value.what


@pytest.mark.parametrize("content", [b"text", tar({"etc/passwd": b"root"})])
def test_other_files_are_no_images(saved: Any, content: bytes) -> None:
    with pytest.raises(CouplerError):
        examine(saved(content))


def test_a_name_is_for_one_image(saved: Any, tmp_path: Path) -> None:
    oci = Oci()
    with pytest.raises(UsageError):
        examine(saved(oci.archive(oci.image(), oci.image("arm64"))), "app:1")
    with pytest.raises(UsageError):
        examine(saved(docker("app:1")), "No Name")
    with pytest.raises(UsageError):
        examine(tmp_path / "none.tar")


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("team/app:1", "docker.io/team/app:1"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("index.docker.io/busybox:1", "docker.io/library/busybox:1"),
        (f"registry.k8s.io/pause@sha256:{'a' * 64}", f"registry.k8s.io/pause@sha256:{'a' * 64}"),
    ],
)
def test_names_are_made_whole(name: str, whole: str) -> None:
    assert normalized(name) == whole


def test_files_are_named_after_their_image() -> None:
    assert file_name("localhost:5000/team/app:1.0", "amd64") == "localhost_5000_team_app_1.0_amd64.tar"
