"""Downloads into the mirror, from a real server that breaks off, lies or refuses."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from coupler.errors import CouplerError
from coupler.mirror import fetching
from coupler.mirror.fetching import Wanted, fetch
from coupler.mirror.folder import Folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTENT = bytes(range(256)) * 400
PLACE = "kubelet/1.36.0/amd64/kubelet"


class Upstream(ThreadingHTTPServer):
    """A server of one file. `cut`: after how many bytes the next answers end; `status`: what it says instead."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.cut: list[int] = []
        self.status: list[int] = []
        self.ranges = True
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file"


class Handler(BaseHTTPRequestHandler):
    server: Upstream

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        if self.server.status:
            self.send_error(self.server.status.pop(0))
            return
        first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.ranges else 0
        whole = self.server.content
        if first >= len(whole):
            self.send_error(416)
            return
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(whole) - 1}/{len(whole)}")
        self.send_header("Content-Length", str(len(whole) - first))
        self.end_headers()
        end = first + self.server.cut.pop(0) if self.server.cut else None
        self.wfile.write(whole[first:end])

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Iterator[Upstream]:
    monkeypatch.setattr(fetching, "_PAUSE_SECONDS", 0.01)
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Upstream() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def wanted(upstream: Upstream) -> Wanted:
    return Wanted(upstream.url, hashlib.sha256(CONTENT).hexdigest(), PLACE)


def get(upstream: Upstream, folder: Path) -> bytes:
    size = fetch(Folder(folder), wanted(upstream), lambda _: None)
    content = (folder / PLACE).read_bytes()
    assert size == len(content)
    assert Folder(folder).checksums() == {PLACE: hashlib.sha256(content).hexdigest()}
    assert Folder(folder).drafts() == []
    return content


def test_a_file_is_fetched_and_listed(upstream: Upstream, tmp_path: Path) -> None:
    assert get(upstream, tmp_path) == CONTENT


def test_a_line_that_breaks_is_taken_up_where_it_broke(upstream: Upstream, tmp_path: Path) -> None:
    upstream.cut = [1000, 2000]
    assert get(upstream, tmp_path) == CONTENT
    assert upstream.asked == [None, "bytes=1000-", "bytes=3000-"]


def test_a_server_without_ranges_sends_all_of_it_again(upstream: Upstream, tmp_path: Path) -> None:
    upstream.ranges, upstream.cut = False, [1000]
    assert get(upstream, tmp_path) == CONTENT


def test_the_next_run_goes_on_where_the_last_one_gave_up(upstream: Upstream, tmp_path: Path) -> None:
    upstream.cut = [1000] * fetching.ATTEMPTS
    with pytest.raises(CouplerError) as caught:
        get(upstream, tmp_path)
    assert "goes on where it stopped" in str(caught.value.next_step)
    assert not (tmp_path / PLACE).exists()
    assert Folder(tmp_path).checksums() == {}
    assert get(upstream, tmp_path) == CONTENT
    assert upstream.asked[-1] == f"bytes={1000 * fetching.ATTEMPTS}-"


def test_a_whole_download_that_was_not_yet_in_place_is_not_fetched_again(upstream: Upstream, tmp_path: Path) -> None:
    draft = (tmp_path / PLACE).with_name(".kubelet.part")
    draft.parent.mkdir(parents=True)
    draft.write_bytes(CONTENT)
    assert get(upstream, tmp_path) == CONTENT
    assert upstream.asked == [f"bytes={len(CONTENT)}-"]


def test_rubbish_of_an_earlier_download_does_no_lasting_harm(upstream: Upstream, tmp_path: Path) -> None:
    draft = (tmp_path / PLACE).with_name(".kubelet.part")
    draft.parent.mkdir(parents=True)
    draft.write_bytes(b"rubbish")
    assert get(upstream, tmp_path) == CONTENT


def test_another_file_is_never_put_in_place(upstream: Upstream, tmp_path: Path) -> None:
    upstream.content = CONTENT[:-1] + b"!"
    with pytest.raises(CouplerError) as caught:
        get(upstream, tmp_path)
    assert hashlib.sha256(upstream.content).hexdigest() in str(caught.value.why)
    assert not (tmp_path / PLACE).exists()
    assert Folder(tmp_path).drafts() == []


def test_a_refusal_ends_it_at_once_and_a_passing_fault_does_not(upstream: Upstream, tmp_path: Path) -> None:
    upstream.status = [404]
    with pytest.raises(CouplerError) as caught:
        get(upstream, tmp_path)
    assert "404" in str(caught.value.why)
    assert len(upstream.asked) == 1
    upstream.status = [503, 429]
    assert get(upstream, tmp_path) == CONTENT


def test_nobody_listening_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_PAUSE_SECONDS", 0.0)
    with pytest.raises(CouplerError) as caught:
        fetch(Folder(tmp_path), Wanted("http://127.0.0.1:9/file", "0" * 64, PLACE), lambda _: None)
    assert "refused" in str(caught.value.why)


def test_a_proxy_of_the_environment_is_asked(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{upstream.server_port}")
    file = Wanted("http://upstream.invalid/file", hashlib.sha256(CONTENT).hexdigest(), PLACE)
    assert fetch(Folder(tmp_path), file, lambda _: None) == len(CONTENT)
