"""The mirror's folder: whole or not at all, and what a look at it finds."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

import pytest

from coupler.errors import CouplerError
from coupler.lab.pause import program
from coupler.mirror.folder import Folder
from coupler.mirror.survey import Have, Verdict, needs, others, verify
from coupler.model import Cluster, load_cluster
from coupler.model.images import MirroredImage

ONE_NODE = Path(__file__).parents[2] / "fixtures" / "cluster" / "valid" / "one-node.yaml"
KUBELET = "kubelet/1.35.1/amd64/kubelet"


def put(folder: Folder, place: str, content: bytes) -> None:
    _, digest = folder.put(place, lambda target: void(target.write(content)), 0o755)
    folder.list_program(place, digest)


def void(_: object) -> None:
    """Take no notice."""


def cluster(tmp_path: Path, more: str) -> Cluster:
    (tmp_path / "cluster.yaml").write_text(ONE_NODE.read_text() + more)
    return load_cluster(tmp_path / "cluster.yaml").cluster


def test_a_write_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "mirror")
    put(folder, KUBELET, b"old")

    def broken(target: BinaryIO) -> None:
        target.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder.put(KUBELET, broken, 0o755)
    assert (folder.path / KUBELET).read_bytes() == b"old"
    assert [file.verdict for file in verify(folder)] == [Verdict.GOOD]
    assert folder.drafts() == []


def test_the_lists_name_what_was_put(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "mirror")
    put(folder, KUBELET, b"one")
    put(folder, "kubectl/1.35.1/amd64/kubectl", b"two")
    put(folder, KUBELET, b"three")
    assert folder.checksums() == {
        KUBELET: hashlib.sha256(b"three").hexdigest(),
        "kubectl/1.35.1/amd64/kubectl": hashlib.sha256(b"two").hexdigest(),
    }


def image(file: str, *references: str) -> MirroredImage:
    return MirroredImage(file, "a" * 64, "amd64", references)


def test_an_image_takes_its_name_from_an_earlier_one(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for file in ("one.tar", "two.tar"):
        folder.put(f"images/{file}", void, 0o644)
    folder.list_image([image("one.tar", "example.org/a:1", "example.org/b:1")])
    folder.list_image([image("two.tar", "example.org/a:1")])
    assert folder.images() == (image("one.tar", "example.org/b:1"), image("two.tar", "example.org/a:1"))
    folder.list_image([image("two.tar", "example.org/a:1", "example.org/b:1")])
    assert folder.images() == (image("two.tar", "example.org/a:1", "example.org/b:1"),)
    assert [path.name for path in (tmp_path / "images").glob("*.tar")] == ["two.tar"]


@pytest.mark.parametrize("name", ["SHA256SUMS", "images/INDEX"])
def test_a_broken_list_is_told_with_its_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("nonsense\n")
    with pytest.raises(CouplerError) as caught:
        verify(Folder(tmp_path))
    assert "line 1" in caught.value.what


def test_index_mends_a_broken_list_and_leaves_out_what_is_half(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for place, content in ((KUBELET, program()), ("kubectl/1.35.1/amd64/kubectl", program()[:-1])):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).write_bytes(content)
    (tmp_path / "SHA256SUMS").write_text("nonsense\n")
    assert folder.index() == {KUBELET: hashlib.sha256(program()).hexdigest()}
    assert folder.checksums() == folder.index() | {KUBELET: hashlib.sha256(program()).hexdigest()}


def test_verify_finds_each_file_that_is_not_as_listed(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    names = ("kubelet", "kubectl", "kube-proxy", "etcd", "etcdctl")
    places = {name: f"{name}/1.0.0/amd64/{name}" for name in names}
    for name, place in places.items():
        put(folder, place, program() + name.encode())
    good = tmp_path / places["kubelet"]
    (tmp_path / places["kubectl"]).write_bytes(program() + b"flipped")
    (tmp_path / places["kube-proxy"]).write_bytes(program()[:-2])
    (tmp_path / places["etcd"]).unlink()
    good.with_name("other").write_bytes(b"x")
    good.with_name(".kubelet.part").write_bytes(b"x")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "by-hand.tar").write_bytes(b"x")
    found = {file.place: file.verdict for file in verify(folder)}
    assert found == {
        places["kubelet"]: Verdict.GOOD,
        places["etcdctl"]: Verdict.GOOD,
        places["kubectl"]: Verdict.CORRUPT,
        places["kube-proxy"]: Verdict.HALF,
        places["etcd"]: Verdict.GONE,
        "kubelet/1.0.0/amd64/other": Verdict.UNLISTED,
        "kubelet/1.0.0/amd64/.kubelet.part": Verdict.LEFTOVER,
        "images/by-hand.tar": Verdict.UNLISTED,
    }


def test_what_a_cluster_needs_is_held_to_what_is_there(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "mirror")
    put(folder, KUBELET, b"own build")
    put(folder, "etcd/3.5.25/amd64/etcd-v3.5.25-linux-amd64.tar.gz", b"the archive")
    put(folder, "kubelet/1.21.0/amd64/kubelet", b"not needed")
    (folder.path / "kubectl/1.35.1/amd64").mkdir(parents=True)
    (folder.path / "kubectl/1.35.1/amd64/kubectl").write_bytes(b"by hand")
    archive = hashlib.sha256(b"the archive").hexdigest()
    more = f"artifacts: {{etcd: {{sha256: {archive}}}, kube-proxy: {{url: 'https://h/p', sha256: {'a' * 64}}}}}"
    found = {entry.name: entry for entry in needs(folder, cluster(tmp_path, more))}
    assert {name: entry.have for name, entry in found.items() if entry.have is not Have.MISSING} == {
        "etcd": Have.VERIFIED,
        "etcdctl": Have.OWN,
        "kubelet": Have.OWN,
        "kubectl": Have.UNLISTED,
        "kube-proxy": Have.ELSEWHERE,
    }
    assert found["kubelet"].size == len(b"own build")
    assert [entry.version for entry in others(folder, tuple(found.values()))] == ["1.21.0"]


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CouplerError) as caught:
        put(Folder(tmp_path / "file"), KUBELET, b"x")
    assert "cannot be written to" in caught.value.what
