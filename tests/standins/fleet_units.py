"""Units as fleet has them: options in their order, the text that they make, and its hash."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

_KNOWN = ("MachineID", "MachineOf", "Conflicts", "MachineMetadata", "Global", "Replaces")


@dataclass(frozen=True)
class Option:
    """A line of a unit."""

    section: str
    name: str
    value: str


def parse(text: str) -> list[Option]:
    """Return the options of a unit's text; what is no line of a section is left out."""
    options: list[Option] = []
    section = ""
    for line in text.replace("\\\n", " ").splitlines():
        stripped = line.strip()
        if stripped.startswith("[") and stripped.endswith("]"):
            section = stripped[1:-1]
        elif stripped and stripped[0] not in "#;" and "=" in stripped:
            name, _, value = stripped.partition("=")
            options.append(Option(section, name.strip(), value.strip()))
    return options


def text_of(options: list[Option]) -> str:
    """Return the text of a unit, as fleet keeps it (go-systemd's unit.Serialize)."""
    lines: list[str] = []
    section = None
    for option in options:
        if option.section != section:
            lines += [*([""] if lines else []), f"[{option.section}]"]
            section = option.section
        lines.append(f"{option.name}={option.value}")
    return "".join(f"{line}\n" for line in lines)


def hash_of(text: str) -> str:
    """Return the name of a text in fleet."""
    return hashlib.sha1(text.encode()).hexdigest()


def requirements(options: list[Option]) -> dict[str, list[str]]:
    """Return what a unit says in [X-Fleet]: name → values. A value of several words in quotes is several."""
    found: dict[str, list[str]] = {}
    for option in options:
        if option.section == "X-Fleet" and option.name in _KNOWN:
            found.setdefault(option.name, []).extend(option.value.replace('"', "").split() or [""])
    return found
