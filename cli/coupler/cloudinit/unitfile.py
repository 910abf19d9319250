"""What a unit's name and text say by themselves, without systemd. Source: systemd.unit(5), systemd.service(5)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SUFFIXES = frozenset(
    ("service", "socket", "device", "mount", "automount", "swap", "target", "path", "timer", "slice", "scope")
)
_NAME = re.compile(r"[A-Za-z0-9:\-_.\\]+(@[A-Za-z0-9:\-_.\\@]*)?")
_MAX_NAME = 255
_NEEDED = {
    "timer": (re.compile("On.*"), "a setting that says when, such as OnCalendar="),
    "path": (re.compile("Path(Exists|ExistsGlob|Changed|Modified)|DirectoryNotEmpty"), "a path, such as PathExists="),
    "socket": (re.compile("Listen.*"), "a setting that says where it listens, such as ListenStream="),
    "swap": (re.compile("What"), "What="),
}
"""What a unit of a type must have at least, by name and in words."""

_CERTAIN_TO_FAIL = frozenset(("/bin/false", "/usr/bin/false"))


@dataclass(frozen=True)
class Setting:
    """An assignment in a unit file; `line` counts from 1."""

    section: str
    name: str
    value: str
    line: int


def is_unit_name(name: str) -> bool:
    """Return whether systemd takes the name: known suffix, allowed characters, at most 255 of them."""
    stem, _, suffix = name.rpartition(".")
    return bool(stem) and suffix in SUFFIXES and len(name) <= _MAX_NAME and _NAME.fullmatch(stem) is not None


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield (number, line) of a unit file: lines that go on after a backslash joined, comments and blanks left out."""
    held, held_line = "", 0
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if line[:1] in ("#", ";") or not (held or line):
            continue
        held_line = held_line if held else number
        if line.endswith("\\"):
            held += f"{line[:-1]} "
            continue
        yield held_line, held + line
        held = ""


def settings_of(text: str) -> list[Setting]:
    """Return the assignments of a unit file in order; a line that is none is left out."""
    settings = []
    section = ""
    for number, line in logical_lines(text):
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif "=" in line:
            name, _, value = line.partition("=")
            settings.append(Setting(section, name.strip(), value.strip(), number))
    return settings


def values_of(settings: list[Setting], section: str, name: str) -> list[str]:
    """Return the values of a setting that may be given several times; an empty one takes back those before it."""
    values: list[str] = []
    for setting in settings:
        if (setting.section, setting.name) == (section, name):
            values = [*values, setting.value] if setting.value else []
    return values


def words_of(settings: list[Setting], section: str, name: str) -> list[str]:
    """Return the words of a setting that holds a list of units."""
    return [word for value in values_of(settings, section, name) for word in value.split()]


def mount_unit_name(where: str, suffix: str = "mount") -> str:
    """Return the name that a mount unit for a path must have (`systemd-escape --path`)."""
    path = "/".join(part for part in where.split("/") if part and part != ".")
    escaped = [
        "-" if character == "/" else character if _is_plain(character, index) else _hex(character)
        for index, character in enumerate(path)
    ]
    return f"{''.join(escaped) or '-'}.{suffix}"


def _is_plain(character: str, index: int) -> bool:
    return bool(re.fullmatch(r"[A-Za-z0-9:_.]", character)) and not (character == "." and index == 0)


def _hex(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))


def load_problem(name: str, settings: list[Setting]) -> str | None:
    """Return why systemd refuses to load a unit, or None."""
    suffix = name.rpartition(".")[2]
    if suffix in ("mount", "automount"):
        return _mount_problem(name, suffix, values_of(settings, suffix.capitalize(), "Where"))
    if suffix == "service":
        return _service_problem(settings)
    if suffix in _NEEDED:
        name_of, words = _NEEDED[suffix]
        own = [setting for setting in settings if setting.section == suffix.capitalize() and setting.value]
        return (
            None if any(map(name_of.fullmatch, (setting.name for setting in own))) else f"a {suffix} unit needs {words}"
        )
    return None


def _mount_problem(name: str, suffix: str, where: list[str]) -> str | None:
    if not where:
        return f"a {suffix} unit needs Where="
    expected = mount_unit_name(where[-1], suffix)
    return None if name == expected else f"for Where={where[-1]} its name must be {expected}"


def _service_problem(settings: list[Setting]) -> str | None:
    kind = values_of(settings, "Service", "Type")[-1:]
    start, stop = (values_of(settings, "Service", key) for key in ("ExecStart", "ExecStop"))
    if not start and not stop and not values_of(settings, "Unit", "SuccessAction"):
        return "a service needs ExecStart= or ExecStop="
    if len(start) > 1 and kind != ["oneshot"]:
        return "more than one ExecStart= needs Type=oneshot"
    if kind == ["oneshot"] and values_of(settings, "Service", "Restart")[-1:] in (["always"], ["on-success"]):
        return "Type=oneshot allows no Restart=always and no Restart=on-success"
    if kind == ["dbus"] and not values_of(settings, "Service", "BusName"):
        return "Type=dbus needs BusName="
    return None


def stays_active(name: str, settings: list[Setting]) -> bool:
    """Return whether a unit is active after its start: a oneshot service only with RemainAfterExit=."""
    if not name.endswith(".service") or values_of(settings, "Service", "Type")[-1:] != ["oneshot"]:
        return True
    return values_of(settings, "Service", "RemainAfterExit")[-1:] in (["yes"], ["true"], ["on"], ["1"])


def is_certain_to_fail(settings: list[Setting]) -> bool:
    """Return whether a oneshot service fails whatever the node is like: it runs `false`."""
    oneshot = values_of(settings, "Service", "Type")[-1:] == ["oneshot"]
    return oneshot and any(command in _CERTAIN_TO_FAIL for command in values_of(settings, "Service", "ExecStart"))
