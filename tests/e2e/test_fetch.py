"""coupler-fetch on a real machine, from the lab's mirror: what is wrong is never run, what is half is gone on with."""

import base64
import hashlib
import io
import os
import subprocess
import tarfile
import threading
from functools import partial
from pathlib import Path

import pytest

from coupler.lab import Lab
from coupler.mirror.fileserver import MirrorServer, RangeHandler

pytestmark = pytest.mark.lab

SCRIPT = Path(__file__).parents[2] / "cloud-config" / "scripts" / "coupler-fetch"
PROGRAM = b"#!/bin/sh\necho I run\n" + b"# padding\n" * 50_000
SHA256 = hashlib.sha256(PROGRAM).hexdigest()


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mirror")
    (folder / "tool").write_bytes(PROGRAM)
    with tarfile.open(folder / "tool.tgz", "w:gz") as archive:
        entry = tarfile.TarInfo("tool-1.0/bin/tool")
        entry.size = len(PROGRAM)
        archive.addfile(entry, io.BytesIO(PROGRAM))
    return folder


@pytest.fixture(scope="module")
def node(lab_host, mirror):
    lab = Lab(f"test-fetch-{os.getpid()}", mirror)
    try:
        (machine,) = lab.up(lab.plan(1))

        def run(script):
            return lab.exec(machine.name, ["sh", "-c", script])

        run.url, run.host = lab.mirror_url, str(lab.network.host)
        run(f"mkdir -p /opt/bin; {put('/opt/bin/coupler-fetch', SCRIPT.read_bytes())}; chmod +x /opt/bin/coupler-fetch")
        yield run
    finally:
        lab.down(forget=True)


@pytest.fixture(autouse=True)
def clean(node):
    yield
    node("rm -rf /opt/bin/tool /opt/tools /var/lib/coupler /run/coupler")


def put(path, content):
    """Return the shell command that writes a file."""
    return f"mkdir -p {Path(path).parent}; echo {base64.b64encode(content).decode()} | base64 -d > {path}"


def fetch(node, line):
    """Run coupler-fetch with a list of one program; return what it reports of it."""
    node(put("/etc/coupler/artifacts", f"# name version sha256 member target urls\n{line}\n".encode()))
    result = node("/opt/bin/coupler-fetch")
    assert result.returncode == 0, result.stderr
    return node("cat /run/coupler/artifacts").stdout.strip()


def test_program_is_fetched_and_runs(node):
    assert fetch(node, f"tool 1.0 {SHA256} - /opt/bin/tool {node.url}/tool") == "installed tool 1.0"
    assert node("/opt/bin/tool").stdout == "I run\n"


def test_second_run_asks_no_server(node):
    fetch(node, f"tool 1.0 {SHA256} - /opt/bin/tool {node.url}/tool")
    before = node("stat -c '%i %Y' /opt/bin/tool").stdout
    assert fetch(node, f"tool 1.0 {SHA256} - /opt/bin/tool http://127.0.0.1:1/tool") == "installed tool 1.0"
    assert node("stat -c '%i %Y' /opt/bin/tool").stdout == before


def test_member_of_an_archive(node, mirror):
    sha256 = hashlib.sha256((mirror / "tool.tgz").read_bytes()).hexdigest()
    line = f"tool 1.0 {sha256} tool-1.0/bin/tool /opt/bin/tool {node.url}/tool.tgz"
    assert fetch(node, line) == "installed tool 1.0"
    assert node("/opt/bin/tool").stdout == "I run\n"


def test_whole_archive_into_a_folder(node, mirror):
    sha256 = hashlib.sha256((mirror / "tool.tgz").read_bytes()).hexdigest()
    assert fetch(node, f"tool 1.0 {sha256} . /opt/tools {node.url}/tool.tgz") == "installed tool 1.0"
    assert node("ls /opt/tools/tool-1.0/bin").stdout == "tool\n"


def test_wrong_checksum_is_never_put_in_place(node):
    report = fetch(node, f"tool 1.0 {'0' * 64} - /opt/bin/tool {node.url}/tool")
    assert report == f"waiting tool 1.0 no server has it: {node.url}/tool has the SHA-256 {SHA256}, not {'0' * 64}"
    assert node("ls /opt/bin/tool /var/lib/coupler/artifacts/*").returncode != 0


def test_each_server_is_told_with_what_it_said(node):
    report = fetch(node, f"tool 1.0 {SHA256} - /opt/bin/tool {node.url}/missing http://127.0.0.1:1/tool")
    assert f"{node.url}/missing (22) The requested URL returned error: 404; http://127.0.0.1:1/tool (7)" in report


def test_member_that_is_not_in_the_archive_leaves_nothing(node, mirror):
    sha256 = hashlib.sha256((mirror / "tool.tgz").read_bytes()).hexdigest()
    report = fetch(node, f"tool 1.0 {sha256} tool-2.0/bin/tool /opt/bin/tool {node.url}/tool.tgz")
    assert report == "waiting tool 1.0 it could not be put at /opt/bin/tool"
    assert node("ls -A /opt/bin").stdout == "coupler-fetch\n"


def test_unknown_checksum_says_what_to_give(node):
    report = fetch(node, f"tool 1.0 - - /opt/bin/tool {node.url}/tool")
    assert report == "waiting tool 1.0 its SHA-256 is not known: give artifacts.tool.sha256 in cluster.yaml"


def test_next_server_is_asked_when_one_has_something_else(node, mirror):
    (mirror / "other").write_bytes(b"something else")
    line = f"tool 1.0 {SHA256} - /opt/bin/tool {node.url}/missing {node.url}/other {node.url}/tool"
    assert fetch(node, line) == "installed tool 1.0"


def test_half_download_is_gone_on_with(node):
    part = f"/var/lib/coupler/artifacts/{SHA256}.part"
    node(put(part, PROGRAM[:1000]))
    assert fetch(node, f"tool 1.0 {SHA256} - /opt/bin/tool {node.url}/tool") == "installed tool 1.0"
    assert node("/opt/bin/tool").stdout == "I run\n"


def test_whole_download_that_was_not_yet_put_in_place(node):
    part = f"/var/lib/coupler/artifacts/{SHA256}.part"
    node(f"curl -sf {node.url}/tool --create-dirs -o {part}")
    assert fetch(node, f"tool 1.0 {SHA256} - /opt/bin/tool {node.url}/tool") == "installed tool 1.0"


class DyingHandler(RangeHandler):
    """Ends the first answer after some of the file, as a server does that dies."""

    def copyfile(self, source, outputfile):
        if self.server.lives:
            super().copyfile(source, outputfile)
        else:
            outputfile.write(source.read(100_000))
            self.server.lives = self.close_connection = True

    def do_GET(self):  # noqa: N802 - the library's name
        self.server.ranges.append(self.headers.get("Range"))
        super().do_GET()


def test_server_that_dies_in_the_middle_is_asked_for_the_rest(node, mirror):
    with MirrorServer((node.host, 0), partial(DyingHandler, directory=str(mirror))) as server:
        server.lives, server.ranges = False, []
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        line = f"tool 1.0 {SHA256} - /opt/bin/tool http://{node.host}:{server.server_port}/tool"
        report = fetch(node, line)
        assert report.startswith("waiting tool 1.0 no server has it: http://")
        assert "(18)" in report
        assert node("ls /opt/bin/tool").returncode != 0
        assert fetch(node, line) == "installed tool 1.0"
        server.shutdown()
        assert server.ranges == [None, "bytes=100000-"]
    assert node("/opt/bin/tool").stdout == "I run\n"


def test_rubbish_from_an_earlier_download_does_no_lasting_harm(node):
    part = f"/var/lib/coupler/artifacts/{SHA256}.part"
    node(put(part, b"rubbish") + f"; truncate -s {len(PROGRAM) + 10} {part}")
    line = f"tool 1.0 {SHA256} - /opt/bin/tool {node.url}/tool"
    fetch(node, line)
    assert fetch(node, line) == "installed tool 1.0"


def test_shell_script_is_sound():
    subprocess.run(["sh", "-n", str(SCRIPT)], check=True)
