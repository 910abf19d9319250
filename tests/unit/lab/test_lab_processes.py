"""Detached processes, their gate and their records."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from coupler.errors import CouplerError
from coupler.lab.processes import Process, start_gated, wait_until

if TYPE_CHECKING:
    from pathlib import Path


def test_nothing_begins_before_the_gate_opens(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    gate = start_gated(["touch", str(mark)], tmp_path / "log")
    process = gate.wait_at_gate()
    assert process.alive()
    assert not mark.exists()
    gate.release()
    assert wait_until(mark.exists, time.monotonic() + 5)


def test_a_process_whose_starter_is_gone_never_begins(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    gate = start_gated(["touch", str(mark)], tmp_path / "log")
    process = gate.wait_at_gate()
    gate.close()
    assert wait_until(lambda: not process.alive(), time.monotonic() + 5)
    assert not mark.exists()


def test_a_process_that_fails_before_its_gate_is_reported(tmp_path: Path) -> None:
    gate = start_gated(["true"], tmp_path / "log", prefix=["false"])
    with pytest.raises(CouplerError):
        gate.wait_at_gate()
    gate.close()


def test_output_goes_to_the_log_and_the_environment_is_extended(tmp_path: Path) -> None:
    log = tmp_path / "log"
    gate = start_gated(["sh", "-c", "echo $WORD; echo err >&2"], log, environment={"WORD": "hello"})
    process = gate.wait_at_gate()
    gate.release()
    assert wait_until(lambda: not process.alive(), time.monotonic() + 5)
    assert log.read_text() == "hello\nerr\n"


def test_a_process_is_killed_with_its_children(tmp_path: Path) -> None:
    gate = start_gated(["sh", "-c", "sleep 60 & wait"], tmp_path / "log")
    process = gate.wait_at_gate()
    gate.release()
    assert wait_until(lambda: process.child() is not None, time.monotonic() + 5)
    child = process.child()
    process.kill_group()
    assert not process.alive()
    assert child
    assert not child.alive()


def test_children_of_a_leader_that_has_ended_are_killed(tmp_path: Path) -> None:
    gate = start_gated(["sh", "-c", "sleep 60 & wait"], tmp_path / "log")
    process = gate.wait_at_gate()
    gate.release()
    assert wait_until(lambda: process.child() is not None, time.monotonic() + 5)
    child = process.child()
    assert child
    os.kill(process.pid, signal.SIGKILL)
    assert wait_until(lambda: not process.alive(), time.monotonic() + 5)
    assert child.alive()
    process.kill_group()
    assert not child.alive()


def test_a_process_that_got_the_id_later_is_not_killed(tmp_path: Path) -> None:
    gate = start_gated(["true"], tmp_path / "log")
    later = gate.wait_at_gate()
    replace(later, started=later.started - 1).kill_group()
    replace(later, boot="before the host booted").kill_group()
    assert later.alive()
    gate.close()


def test_a_record_outlives_its_writer_and_nothing_else(tmp_path: Path) -> None:
    record = tmp_path / "record"
    me = Process.of(os.getpid())
    me.save(record)
    assert Process.load(record) == me
    assert me.alive()
    assert not replace(me, started=me.started + 1).alive(), "another process with the same id"
    assert not replace(me, boot="before the host booted").alive()
    record.write_text("{")
    assert Process.load(record) is None
    assert Process.load(tmp_path / "none") is None
