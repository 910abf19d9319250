"""What an image brings and what systemd knows, as far as rules about units need it: two lists beside this module.

The units are those of all images taken together: a unit that only some of them have is no mistake that a check could
know of.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

_PREFIXES = ("systemd-", "coreos-", "flatcar-", "oem-", "user-", "system-", "initrd-", "dracut-", "modprobe@", "rc-")
_CHECKED = frozenset(("service", "socket", "timer", "path", "target"))


def may_be_shipped(unit: str) -> bool:
    """Return whether an image may have a unit, or systemd makes it of itself (mounts, devices, slices, scopes)."""
    stem, _, suffix = unit.rpartition(".")
    if suffix not in _CHECKED or "%" in unit or "$" in unit:
        return True
    known = _listed("shipped-units.txt")["targets" if suffix == "target" else "units"]
    name = f"{stem.partition('@')[0]}@" if "@" in stem else stem
    return stem.startswith(_PREFIXES) or name in known


def directives(section: str) -> frozenset[str]:
    """Return the settings that systemd knows in a section of a unit file."""
    return _listed("systemd-directives.txt").get(section, frozenset())


def sections_with(directive: str) -> list[str]:
    """Return the sections in which systemd knows a setting."""
    return [section for section, names in _listed("systemd-directives.txt").items() if directive in names]


@cache
def _listed(name: str) -> dict[str, frozenset[str]]:
    """Return the words of each paragraph of a list, by the word in brackets that heads it."""
    text = Path(__file__).with_name(name).read_text(encoding="ascii")
    paragraphs = (paragraph.split() for paragraph in text.split("\n\n")[1:])
    return {words[0][1:-1]: frozenset(words[1:]) for words in paragraphs}
