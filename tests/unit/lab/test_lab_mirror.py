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
from coupler.lab.image import Image
from coupler.lab.mirror import index, seed
from coupler.mirror.fileserver import MirrorServer, RangeHandler

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
    index(tmp_path)
    sums = tmp_path / "SHA256SUMS"
    assert sums.read_text() == line("one", "etcd/1.2.3/amd64/etcd")
    put(tmp_path, "kubelet/1.35.0/amd64/kubelet", "two")
    put(tmp_path, "etcd/1.2.3/amd64/etcd", "new")
    future = sums.stat().st_mtime + 10
    os.utime(tmp_path / "etcd/1.2.3/amd64/etcd", (future, future))
    index(tmp_path)
    assert sums.read_text() == line("new", "etcd/1.2.3/amd64/etcd") + line("two", "kubelet/1.35.0/amd64/kubelet")
    (tmp_path / "kubelet/1.35.0/amd64/kubelet").unlink()
    index(tmp_path)
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
    index(tmp_path / "mirror")
    os.utime(built / "registrator.tar.gz", (0, 0))
    seed(tmp_path / "mirror", image, built / "registrator.tar.gz")
    index(tmp_path / "mirror")
    assert (tmp_path / "mirror/etcd/3.4.23/amd64/etcd").read_text() == "somebody's own"
    assert (tmp_path / "mirror/etcdctl/3.4.23/amd64/etcdctl").read_text() == "built"
    assert (tmp_path / "mirror" / registrator).read_text() == "this code's"
    assert line("this code's", registrator) in (tmp_path / "mirror/SHA256SUMS").read_text()


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
