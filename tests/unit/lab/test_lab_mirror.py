"""The mirror folder and its server."""

from __future__ import annotations

import hashlib
import os
import threading
from functools import partial
from http.client import HTTPConnection
from typing import TYPE_CHECKING

import pytest

from coupler import __version__
from coupler.lab import pause
from coupler.lab.image import Image
from coupler.lab.mirror import link, origin_of, stock, stocked
from coupler.mirror.fileserver import MirrorServer, RangeHandler
from coupler.mirror.folder import Folder
from coupler.model.images import MirroredImage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def put(folder: Path, name: str, content: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def line(content: str, name: str) -> str:
    return f"{hashlib.sha256(content.encode()).hexdigest()}  {name}\n"


def test_index_follows_the_files(tmp_path: Path) -> None:
    put(tmp_path, "etcd/1.2.3/amd64/etcd", "one")
    put(tmp_path, "etcd/1.2.3/amd64/.draft", "half")
    put(tmp_path, "readme", "text")
    Folder(tmp_path).index()
    sums = tmp_path / "SHA256SUMS"
    assert sums.read_text() == line("one", "etcd/1.2.3/amd64/etcd")
    put(tmp_path, "kubelet/1.35.0/amd64/kubelet", "two")
    put(tmp_path, "etcd/1.2.3/amd64/etcd", "new")
    future = sums.stat().st_mtime + 10
    os.utime(tmp_path / "etcd/1.2.3/amd64/etcd", (future, future))
    Folder(tmp_path).index()
    assert sums.read_text() == line("new", "etcd/1.2.3/amd64/etcd") + line("two", "kubelet/1.35.0/amd64/kubelet")
    (tmp_path / "kubelet/1.35.0/amd64/kubelet").unlink()
    Folder(tmp_path).index()
    assert sums.read_text() == line("new", "etcd/1.2.3/amd64/etcd")


def test_seed_keeps_what_is_there_but_for_our_own_program(tmp_path: Path) -> None:
    built = tmp_path / "image"
    put(built, "programs/etcd/3.4.23/etcd", "built")
    put(built, "programs/etcdctl/3.4.23/etcdctl", "built")
    image = Image(built / "root.squashfs", built, built / "programs")
    put(built, "registrator.tar.gz", "this code's")
    put(tmp_path, "mirror/etcd/3.4.23/amd64/etcd", "somebody's own")
    registrator = f"registrator/{__version__}/amd64/registrator.tar.gz"
    put(tmp_path, f"mirror/{registrator}", "earlier")
    Folder(tmp_path / "mirror").index()
    os.utime(built / "registrator.tar.gz", (0, 0))
    stock(tmp_path / "mirror", image, built / "registrator.tar.gz")
    Folder(tmp_path / "mirror").index()
    assert (tmp_path / "mirror/etcd/3.4.23/amd64/etcd").read_text() == "somebody's own"
    assert (tmp_path / "mirror/etcdctl/3.4.23/amd64/etcdctl").read_text() == "built"
    assert (tmp_path / "mirror" / registrator).read_text() == "this code's"
    assert line("this code's", registrator) in (tmp_path / "mirror/SHA256SUMS").read_text()


@pytest.fixture
def built(tmp_path: Path) -> Image:
    folder = tmp_path / "image"
    for name in ("etcd", "etcdctl"):
        put(folder, f"programs/{name}/3.4.23/{name}", "built")
    put(folder, "programs/cni-plugins/1.1.1/cni-plugins-linux-amd64-v1.1.1.tgz", "built")
    put(folder, "registrator.tar.gz", "this code's")
    return Image(folder / "root.squashfs", folder, folder / "programs")


def test_a_component_that_the_mirror_has_whole_is_left_alone(tmp_path: Path, built: Image) -> None:
    for name in ("etcd", "etcdctl"):
        put(tmp_path, f"mirror/{name}/3.5.25/amd64/{name}", "newer")
    stock(tmp_path / "mirror", built, built.applier / "registrator.tar.gz")
    assert {place.split("/")[0] for place in Folder(tmp_path / "mirror").checksums()} == {
        *("etcd", "etcdctl", "cni-plugins", "registrator")
    }
    assert not (tmp_path / "mirror/etcd/3.4.23").exists()


def test_the_labs_own_pause_image_is_there_where_no_other_is(tmp_path: Path, built: Image) -> None:
    registrator = built.applier / "registrator.tar.gz"
    mirror = Folder(tmp_path / "mirror")
    for _ in range(2):
        stock(mirror.path, built, registrator)
        assert [image.references for image in mirror.images()] == [(pause.REFERENCE,)]
    assert (
        hashlib.sha256((mirror.path / mirror.images()[0].place).read_bytes()).hexdigest() == mirror.images()[0].sha256
    )
    put(tmp_path, "other/images/p.tar", "real")
    real = MirroredImage("p.tar", "0" * 64, "amd64", ("registry.k8s.io/pause:3.10",))
    Folder(tmp_path / "other").list_image([real])
    stock(tmp_path / "other", built, registrator)
    assert Folder(tmp_path / "other").images() == (real,)


def test_a_folder_that_cannot_be_written_to_is_served_by_links(tmp_path: Path, built: Image) -> None:
    registrator = built.applier / "registrator.tar.gz"
    given, spare = tmp_path / "given", tmp_path / "spare"
    put(given, "kubelet/1.35.0/amd64/kubelet", "theirs")
    put(given, "images/app.tar", "image")
    Folder(given).list_image([MirroredImage("app.tar", "1" * 64, "amd64", ("example.org/app:1",))])
    (given / "SHA256SUMS").mkdir()  # not even root writes a file here
    told: list[str] = []
    assert stocked(given, spare, built, registrator, told.append) == spare
    assert str(given) in told[0]
    assert origin_of(spare) == given
    found = Folder(spare).checksums()
    assert found["kubelet/1.35.0/amd64/kubelet"] == hashlib.sha256(b"theirs").hexdigest()
    assert "etcd/3.4.23/amd64/etcd" in found
    assert (spare / "images/app.tar").read_text() == "image"
    assert {image.references[0] for image in Folder(spare).images()} == {"example.org/app:1", pause.REFERENCE}
    (given / "kubelet/1.35.0/amd64/kubelet").unlink()
    link(given, spare)
    Folder(spare).index()
    assert "kubelet/1.35.0/amd64/kubelet" not in Folder(spare).checksums()


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[HTTPConnection]:
    put(tmp_path, "file", "0123456789")
    server = MirrorServer(("127.0.0.1", 0), partial(RangeHandler, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield HTTPConnection("127.0.0.1", server.server_port, timeout=5)
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("asked", "status", "body", "content_range"),
    [
        (None, 200, "0123456789", None),
        ("bytes=4-", 206, "456789", "bytes 4-9/10"),
        ("bytes=2-4", 206, "234", "bytes 2-4/10"),
        ("bytes=8-99", 206, "89", "bytes 8-9/10"),
        ("bytes=10-", 416, "", "bytes */10"),
        ("bytes=1-2,4-5", 200, "0123456789", None),
    ],
)
def test_ranges(
    connection: HTTPConnection, asked: str | None, status: int, body: str, content_range: str | None
) -> None:
    for _ in range(2):  # the second answer shows that the first one ended where it said
        connection.request("GET", "/file", headers={"Range": asked} if asked else {})
        answer = connection.getresponse()
        assert (answer.status, answer.read().decode()) == (status, body)
        assert answer.headers["Content-Range"] == content_range


def test_what_is_not_there_is_not_found(connection: HTTPConnection) -> None:
    connection.request("GET", "/none", headers={"Range": "bytes=0-"})
    assert connection.getresponse().status == 404
