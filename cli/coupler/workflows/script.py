"""The POSIX shell scripts that ask a node what it is like, and their answers: lines NAME=VALUE."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_FOLDER = Path(__file__).parent / "scripts"


def script(name: str, variables: Mapping[str, str] | None = None) -> str:
    """Return the script `name`, after a line that sets each of the variables (values without quotes in them)."""
    head = "".join(f"{key}='{value}'\n" for key, value in (variables or {}).items())
    return head + (_FOLDER / f"{name}.sh").read_text(encoding="utf-8")


class Answer:
    """The lines that a script printed; a name may occur several times."""

    def __init__(self, output: str) -> None:
        self._values: dict[str, list[str]] = {}
        for line in output.splitlines():
            name, found, value = line.partition("=")
            if found:
                self._values.setdefault(name, []).append(value.strip())

    def one(self, name: str) -> str:
        """Return the value of `name`, empty where it is missing."""
        return self.all(name)[0] if name in self._values else ""

    def all(self, name: str) -> list[str]:
        """Return every value of `name`."""
        return self._values.get(name, [])
