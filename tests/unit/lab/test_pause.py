"""The lab's image for the sandbox of a pod: its program runs, and the image is one."""

from __future__ import annotations

import io
import signal
import subprocess
import time
from pathlib import Path

from coupler.lab.pause import REFERENCE, program, write_image
from coupler.mirror.archives import examine
from coupler.mirror.programs import Kind, look_at


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_the_program_waits_until_it_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "pause"
    file.write_bytes(program())
    file.chmod(0o755)
    with subprocess.Popen([str(file)]) as running:
        deadline = time.monotonic() + 10
        while state_of(running.pid) != "S" and time.monotonic() < deadline:
            time.sleep(0.01)
        assert state_of(running.pid) == "S", "it sleeps in pause(2), and spends no time"
        for _ in range(2):
            running.send_signal(signal.SIGCONT)
        assert running.poll() is None
        running.kill()
        assert running.wait(10) == -signal.SIGKILL


def test_the_program_is_whole_and_for_x86_64() -> None:
    look = look_at(io.BytesIO(program()))
    assert (look.kind, look.arch, look.least) == (Kind.PROGRAM, "amd64", len(program()))


def test_the_image_is_the_same_each_time_and_called_by_its_name(tmp_path: Path) -> None:
    packed = [io.BytesIO(), io.BytesIO()]
    for each in packed:
        write_image(each)
    assert packed[0].getvalue() == packed[1].getvalue()
    (tmp_path / "pause.tar").write_bytes(packed[0].getvalue())
    assert examine(tmp_path / "pause.tar").references == {"amd64": (REFERENCE,)}
