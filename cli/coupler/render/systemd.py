"""Words of a systemd command line (systemd.service(5), 'Command lines')."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def command_words(arguments: Mapping[str, str]) -> list[str]:
    """Return long options (`{"name": "value"}`) as words of an ExecStart= line, sorted by name and quoted."""
    return [word(f"--{name}={value}") for name, value in sorted(arguments.items())]


def word(text: str) -> str:
    """Return one argument so that systemd passes it on as it is: no specifier, variable or quote takes effect."""
    text = text.replace("%", "%%").replace("$", "$$")
    if not any(character in text for character in " \"'\\;"):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
