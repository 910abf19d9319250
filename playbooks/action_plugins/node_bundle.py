"""Ansible action plugin: run a role's install.sh on a node as one command, with the bundle on its standard input.

For a module Ansible runs some six commands on a node, and its arguments, here private keys, become a file there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc]
    """Takes `bundle`, the file on this machine with the node's files as a tar archive in base64."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what install.sh answers."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        bundle = Path(self._task.args["bundle"]).read_text(encoding="ascii")
        scripts = (Path(__file__).with_name("bundle.sh"), Path(self._find_needle("files", "install.sh")))
        parts = [script.read_text(encoding="utf-8") for script in scripts]
        head = f"check={str(self._task.check_mode).lower()}\nbundle='{bundle}'\n"
        done = self._low_level_execute_command("sh -s", in_data="".join([head, *parts]).encode())
        try:
            return result | json.loads(done["stdout"])
        except ValueError:
            return result | {"failed": True, "msg": done["stderr"] or f"install.sh ended with exit code {done['rc']}"}
