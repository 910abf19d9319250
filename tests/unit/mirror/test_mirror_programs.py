"""What may become a program of the mirror, and what is refused with a reason."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
from pathlib import Path

import pytest

from coupler.errors import CouplerError, UsageError
from coupler.lab.pause import program
from coupler.mirror.folder import Folder
from coupler.mirror.naming import program_named, version_named
from coupler.mirror.programs import Kind, Offer, is_half, look_at

AMD64 = program()
ARM64 = AMD64[:18] + struct.pack("<H", 183) + AMD64[20:]
TRUE = Path("/bin/true").read_bytes()


def write(tmp_path: Path, content: bytes, name: str = "file") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def packed(tmp_path: Path, members: dict[str, bytes], name: str = "archive.tar.gz", mode: str = "w:gz") -> Path:
    path = tmp_path / name
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for member, content in members.items():
            entry = tarfile.TarInfo(member)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def added(offer: Offer, tmp_path: Path) -> tuple[str, bytes]:
    """Put what is offered into a mirror; return where it is and what is there."""
    addition = offer.examine()
    target, _ = Folder(tmp_path / "mirror").put(addition.place, addition.fill, addition.mode)
    assert target == tmp_path / "mirror" / addition.place
    return addition.place, target.read_bytes()


def test_a_program_of_this_machine_is_whole() -> None:
    look = look_at(io.BytesIO(TRUE))
    assert look.kind is Kind.PROGRAM
    assert 0 < look.least <= len(TRUE)


@pytest.mark.parametrize(
    "content", [AMD64[:-1], AMD64[:70], AMD64[:20], TRUE[:-100], b"", gzip.compress(b"x" * 99, mtime=0)[:-4]]
)
def test_a_file_without_its_end_is_half(tmp_path: Path, content: bytes) -> None:
    file = write(tmp_path, content)
    assert is_half(file)
    with pytest.raises(CouplerError) as caught:
        Offer("kubelet", file, "1.36.0").examine()
    assert "half file" in caught.value.what


@pytest.mark.parametrize("content", [AMD64, TRUE, b"#!/bin/sh\n", gzip.compress(b"x" * 99, mtime=0), b"text"])
def test_a_file_with_its_end_is_not(tmp_path: Path, content: bytes) -> None:
    assert not is_half(write(tmp_path, content))


@pytest.mark.parametrize("content", [AMD64, b"#!/bin/sh\necho a stand-in\n"])
def test_a_program_goes_where_nodes_look_for_it(tmp_path: Path, content: bytes) -> None:
    file = write(tmp_path, content)
    assert added(Offer("kubelet", file, "1.36.0"), tmp_path) == ("kubelet/1.36.0/amd64/kubelet", content)
    assert (tmp_path / "mirror/kubelet/1.36.0/amd64/kubelet").stat().st_mode & 0o777 == 0o755


def test_the_architecture_is_that_of_the_elf_header(tmp_path: Path) -> None:
    file = write(tmp_path, ARM64)
    assert Offer("kubelet", file, "1.36.0").examine().place == "kubelet/1.36.0/arm64/kubelet"
    assert Offer("kubelet", file, "1.36.0", "arm64", "amd64").examine().place == "kubelet/1.36.0/arm64/kubelet"
    for offer in (Offer("kubelet", file, "1.36.0", None, "amd64"), Offer("kubelet", file, "1.36.0", "amd64")):
        with pytest.raises(CouplerError) as caught:
            offer.examine()
        assert "is for arm64" in caught.value.what
        assert "get the build for amd64" in str(caught.value.next_step)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"just text", "is no program"), (AMD64[:16] + b"\x01" + AMD64[17:], "is no program")],
    ids=["text", "object file"],
)
def test_what_does_not_run_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(CouplerError) as caught:
        Offer("kubelet", write(tmp_path, content), "1.36.0").examine()
    assert said in caught.value.what


def test_upstreams_archive_stays_one_and_serves_both_programs(tmp_path: Path) -> None:
    inner = "etcd-v3.5.25-linux-amd64"
    file = packed(tmp_path, {f"{inner}/etcd": AMD64, f"{inner}/etcdctl": AMD64})
    place, content = added(Offer("etcd", file, "3.5.25"), tmp_path)
    assert place == "etcd/3.5.25/amd64/etcd-v3.5.25-linux-amd64.tar.gz"
    assert content == file.read_bytes()


@pytest.mark.parametrize(("name", "mode"), [("a.tgz", "w:gz"), ("a.tar.xz", "w:xz"), ("a.tar", "w")])
def test_of_another_archive_the_program_is_taken(tmp_path: Path, name: str, mode: str) -> None:
    file = packed(tmp_path, {"./some/where/flanneld": AMD64, "./README": b"text"}, name, mode)
    offer = Offer("flanneld", file, "0.27.4")
    assert added(offer, tmp_path) == ("flanneld/0.27.4/amd64/flanneld", AMD64)
    assert offer.examine().note == "taken out of the archive: some/where/flanneld"


def test_an_archive_without_the_program_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(CouplerError) as caught:
        Offer("kubelet", packed(tmp_path, {"bin/kubectl": AMD64}), "1.36.0").examine()
    assert caught.value.why == "it holds bin/kubectl"


def test_an_archive_for_another_architecture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CouplerError) as caught:
        Offer("crictl", packed(tmp_path, {"crictl": ARM64}), "1.35.0", None, "amd64").examine()
    assert "is for arm64" in caught.value.what


def test_plugins_are_an_archive_as_nodes_unpack_it(tmp_path: Path) -> None:
    file = packed(tmp_path, {"./bridge": AMD64, "./LICENSE": b"text"})
    place, content = added(Offer("cni-plugins", file, "1.8.0"), tmp_path)
    assert place == "cni-plugins/1.8.0/amd64/cni-plugins-linux-amd64-v1.8.0.tgz"
    assert content == file.read_bytes()
    for other in (packed(tmp_path, {"bridge": AMD64}, "plain.tar", "w"), write(tmp_path, AMD64, "bridge")):
        with pytest.raises(CouplerError):
            Offer("cni-plugins", other, "1.8.0").examine()


def test_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        Offer("kubelet", tmp_path / "none", "1.36.0").examine()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("kubelet", "kubelet"),
        ("etcd", "etcd"),
        ("fleet", "fleetd"),
        ("flannel", "flanneld"),
        ("locksmith", "locksmithctl"),
    ],
)
def test_a_program_may_be_called_by_its_archive(name: str, meant: str) -> None:
    assert program_named(name) == meant


@pytest.mark.parametrize(
    ("name", "hint"), [("kubelte", "did you mean `kubelet`?"), ("kubernetes", "kube-apiserver"), ("xyz", "etcd")]
)
def test_another_name_gets_a_suggestion(name: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        program_named(name)
    assert hint in str(caught.value.next_step)


@pytest.mark.parametrize(("version", "hint"), [("v1.36.0", "1.36.0"), ("1.36", "three"), (None, "--version")])
def test_a_version_has_three_numbers(version: str | None, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        version_named("kubelet", version)
    assert hint in str(caught.value.next_step)
