"""Ansible callback plugin: what happens on the hosts, as one JSON object a line on standard output.

Runs inside Ansible. Ansible's exit code says too little (4 is 'unreachable' and also 'parser error'), so the state
of each host is taken from these events.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: coupler_events
type: stdout
short_description: One JSON object a line for each event
description: Writes what happens on the hosts as newline-delimited JSON.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Writes an event for the start of each task and for each host's result."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "coupler_events"

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:  # noqa: ARG002
        """Tell that a task begins."""
        _emit({"event": "task", "task": task.get_name()})

    def v2_runner_on_ok(self, result: Any) -> None:
        """Tell that a host finished a task."""
        _emit_result(result, "changed" if result._result.get("changed") else "ok")  # noqa: SLF001 - the API

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:  # noqa: ARG002
        """Tell that a host failed a task."""
        _emit_result(result, "failed")

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Tell that a host could not be reached."""
        _emit_result(result, "unreachable")


def _emit_result(result: Any, state: str) -> None:
    answer = result._result  # noqa: SLF001 - the API of callback plugins
    text = str(answer.get("msg") or answer.get("stderr") or answer.get("module_stderr") or "")
    _emit(
        {
            "event": "host",
            "host": result._host.get_name(),  # noqa: SLF001 - likewise
            "task": result._task.get_name(),  # noqa: SLF001 - likewise
            "state": state,
            "text": text.strip(),
        }
    )


def _emit(event: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()
