"""Bad days of the operator: Ctrl-C, SIGTERM and SIGKILL at every point of `cluster init`; the next run completes."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from conftest import Site

pytestmark = pytest.mark.lab

POINTS = [
    r"preflight …",
    r"preflight · node-\d: ok",
    r"certificates …",
    r"publish …",
    r"bootstrap …",
    r"bootstrap · node-\d: \w+",
    r"pull …",
    r"pull · node-\d: \w+",
    r"health …",
]
"""Lines of progress at which the run is ended, one run after the other, so that each gets further than the last."""

LITTER = """
find /opt /var/lib/coupler /run/coupler /tmp -name '*.new' -o -name '*.part' -o -name 'ansible-tmp-*'
find /etc/coupler -name '*.new' -o -name '*.[0-9]*'
find /run -maxdepth 1 -name 'coupler-bundle*'
"""


def read_to(process: subprocess.Popen[str], pattern: str) -> str:
    """Read what the command says until a line has `pattern`; return all of it."""
    said = ""
    assert process.stderr
    for line in process.stderr:
        said += line
        if re.search(pattern, line):
            return said
    raise AssertionError(f"no line with {pattern!r} in:\n{said}")


def interrupt(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    """Signal the process group as a terminal does; return the exit code and the rest of what was said."""
    os.killpg(process.pid, number)
    assert process.stderr
    rest = process.stderr.read()
    return process.wait(timeout=60), rest


def processes_of(site: Site) -> list[str]:
    """Return the command lines of the processes that runs of `init` have left: the CLI's, Ansible's, ssh, git."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue
        if os.fsencode(site.mark("init")) in environment:
            found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found


def assert_completes(site: Site) -> None:
    """Assert that one more run leads to a healthy cluster, and that nothing of the ended ones is left."""
    answer = site.json("init")
    assert answer.exit_code == 0, answer.stderr
    assert answer.data["failed"] == []
    assert set(site.everywhere("cat /run/coupler/applied").values()) == {site.published}
    assert set(site.everywhere(LITTER).values()) == {""}
    assert not list(site.folder.glob(".coupler/run-*"))
    assert not [path for path in (site.folder / ".coupler").rglob(".*") if path.name != ".gitignore"]
    assert site.json("init").data["changed"] is False


def test_killed_at_any_point_the_next_run_completes(make_site: Callable[[int], Site]) -> None:
    site = make_site(3)
    for point in POINTS:
        process = site.start("init")
        read_to(process, point)
        process.kill()
        process.communicate()
    assert_completes(site)


@pytest.fixture(scope="module")
def site(make_site: Callable[[int], Site]) -> Site:
    return make_site(3)


def assert_interrupted(code: int, said: str) -> None:
    assert code == 130
    assert said.endswith("error: interrupted\n  next: run the same command again: it goes on where it stopped\n")
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("number", "points"),
    [(signal.SIGINT, POINTS), (signal.SIGTERM, ["bootstrap …", "pull …"])],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_interrupted_at_any_point_it_cleans_up_and_the_next_run_completes(
    site: Site, number: signal.Signals, points: list[str]
) -> None:
    for point in points:
        process = site.start("init")
        read_to(process, point)
        assert_interrupted(*interrupt(process, number))
        assert processes_of(site) == [], point
        assert not list(site.folder.glob(".coupler/run-*"))
    assert_completes(site)


@pytest.fixture
def gate(site: Site, tmp_path: Path) -> Iterator[Path]:
    """Make the next run publish, and its push wait for whoever opens the gate for writing until that is closed."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    hook = site.lab.repository_path / "hooks" / "pre-receive"
    hook.write_text(f"#!/bin/sh\ncat {gate}\n")
    hook.chmod(0o755)
    text = site.file.read_text()
    timeout = re.search(r"election_timeout: (\d+)", text)
    assert timeout
    site.edit(timeout[0], f"election_timeout: {int(timeout[1]) + 10}")
    yield gate
    hook.unlink()


@pytest.fixture
def silent(site: Site) -> Iterator[Callable[[], None]]:
    """Make node-3 hear nobody; afterwards it does again."""
    yield lambda: site.lab.cut("node-3")
    site.lab.heal("node-3")


def test_interrupt_does_not_wait_for_a_node_that_does_not_answer(site: Site, silent: Callable[[], None]) -> None:
    silent()
    process = site.start("init")
    said = "".join(read_to(process, r"preflight · node-\d: ok") for _ in range(2))
    code, rest = interrupt(process, signal.SIGINT)
    assert_interrupted(code, rest)
    assert "node-3" not in said + rest
    assert processes_of(site) == []


def test_interrupt_ends_ansible_while_a_node_does_not_answer(
    site: Site, silent: Callable[[], None], gate: Path
) -> None:
    process = site.start("init")
    with gate.open("w"):  # preflight is over then, and nothing has gone to a node
        silent()
    read_to(process, "bootstrap …")
    said = "".join(read_to(process, r"bootstrap · node-\d: \w+") for _ in range(2))
    code, rest = interrupt(process, signal.SIGINT)
    assert_interrupted(code, rest)
    assert "node-3" not in said + rest
    assert processes_of(site) == []


def test_interrupt_does_not_wait_for_a_node_that_takes_its_time(site: Site) -> None:
    site.inside("node-3", "systemd-run --quiet --unit=holder flock /run/coupler/pull.lock sleep infinity")
    try:
        site.edit("heartbeat_interval: 50\n", "heartbeat_interval: 51\n")
        process = site.start("init", "--limit", "node-3")
        read_to(process, "pull …")
        site.inside(
            "node-3", "until systemctl show -P ActiveState coupler-pull | grep -q activating; do sleep 0.05; done"
        )
        code, rest = interrupt(process, signal.SIGINT)
        assert_interrupted(code, rest)
        assert "node-3" not in rest
    finally:
        site.inside("node-3", "systemctl stop holder")


def test_interrupt_during_the_push_leaves_the_branch_whole(site: Site, gate: Path) -> None:
    before = site.published
    process = site.start("init")
    with gate.open("w"):
        assert_interrupted(*interrupt(process, signal.SIGINT))
    assert site.published == before
    assert processes_of(site) == []


def test_interrupted_run_answers_with_one_envelope(site: Site) -> None:
    process = site.start("init", "--output", "json")
    read_to(process, "preflight …")
    os.killpg(process.pid, signal.SIGINT)
    stdout, _ = process.communicate(timeout=60)
    envelope = json.loads(stdout)
    assert (process.returncode, envelope["ok"], envelope["exit_code"]) == (130, False, 130)
    assert envelope["error"]["what"] == "interrupted"


def test_after_all_these_interrupts_a_run_completes(site: Site) -> None:
    assert_completes(site)
