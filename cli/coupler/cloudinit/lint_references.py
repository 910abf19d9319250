"""Rules about what units refer to: other units that are not there, programs that nobody brings, waits without end."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from coupler.cloudinit.golang import clean_path, join_path
from coupler.cloudinit.lint_files import written
from coupler.cloudinit.shipped import may_be_shipped
from coupler.cloudinit.unitfile import is_unit_name, settings_of, values_of, words_of
from coupler.cloudinit.units import STARTING, all_settings, texts, units
from coupler.errors import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coupler.cloudinit.parse import Node
    from coupler.cloudinit.subject import Subject
    from coupler.cloudinit.unitfile import Setting
    from coupler.errors import Finding

_DEADLOCK = frozenset(
    (
        *("user-config.target", "system-config.target", "coreos-cloudinit.service"),
        *("multi-user.target", "graphical.target", "default.target"),
    )
)
"""What a boot reaches only after the cloud-config has been applied."""

_PULLING = ("Requires", "Requisite", "BindsTo", "Wants", "Upholds")
_NEEDING = ("Requires", "Requisite", "BindsTo")
_TRIGGERS = {"timer": "Timer", "path": "Path", "socket": "Socket"}
_GUARDS = ("FileIsExecutable", "PathExists", "FileNotEmpty")
_CUSTOM = ("/opt/", "/etc/", "/usr/local/", "/home/", "/root/", "/srv/", "/var/", "/run/", "/media/", "/mnt/")
_FETCHING = re.compile(
    r"\b(curl|wget|tar|unzip|git|install|cp|mv|ln|docker|podman|ctr|rkt|rsync|scp|dd|tee|cat|bsdtar)\b"
)
_EXEC = re.compile(r"\s*Exec\w+\s*=\s*[-@:+!|]*[\"']?\S+")
_PATH = re.compile(r"/[^\s\"'=:,;|&<>()$%]+")
_EXECUTABLE = re.compile(r"0*[1-7]?[1357][0-7]{2}")


def program_of(value: str) -> str:
    """Return the program of an `Exec…=` line without systemd's prefixes and quotes."""
    words = value.lstrip("-@:+!|").split()
    return words[0].strip("\"'") if words else ""


def _missing_units(subject: Subject) -> Iterator[Finding]:
    here = {_template(name) for name, _ in units(subject)}
    files = {path.rpartition("/")[2] for path, _, _ in written(subject) if "/systemd/" in path}
    here |= {_template(file) for file in files}
    here |= {_template(alias) for _, unit in units(subject) for alias in _aliases(subject, unit)}
    for name, unit in units(subject):
        for content in texts(subject, unit):
            for setting in settings_of(content.value):
                for other in _needed(setting):
                    if _template(other) not in here and not may_be_shipped(other):
                        message = f"{name} needs {other}, which neither this document nor the image has"
                        place = subject.place_in(content, setting.line)
                        yield subject.at("missing-unit", Severity.WARNING, message, place)
        yield from _without_content(subject, name, unit, here, files)


def _needed(setting: Setting) -> list[str]:
    if setting.section == "Unit" and setting.name in _NEEDING:
        return setting.value.split()
    explicit = setting.section in _TRIGGERS.values() and setting.name in ("Unit", "Service")
    return [setting.value] if explicit and setting.value else []


def _aliases(subject: Subject, unit: Node) -> list[str]:
    return words_of(all_settings(subject, unit), "Install", "Alias")


def _template(name: str) -> str:
    """Return the name of an instance's template; any other name as it is."""
    stem, at, rest = name.partition("@")
    return f"{stem}@.{rest.rpartition('.')[2]}" if at else name


def _without_content(subject: Subject, name: str, unit: Node, here: set[str], files: set[str]) -> Iterator[Finding]:
    """Yield findings about a unit that is used but written nowhere, and about one that a trigger wants."""
    suffix, settings = name.rpartition(".")[2], all_settings(subject, unit)
    used = subject.value(unit, "command") in STARTING or subject.truth(unit, "enable")
    if used and is_unit_name(name) and not {name, _template(name)} & files and not may_be_shipped(name):
        message = f"neither this document nor the image has {name}: the run ends where it is used"
        yield subject.finding("missing-unit", Severity.WARNING, message, subject.outline.at(unit, "name"))
    explicit = values_of(settings, _TRIGGERS.get(suffix, ""), "Service" if suffix == "socket" else "Unit")
    if suffix in _TRIGGERS and subject.value(unit, "content") and not explicit:
        accepting = values_of(settings, "Socket", "Accept")[-1:] in (["yes"], ["true"], ["on"], ["1"])
        other = f"{name.rpartition('.')[0]}{'@' if accepting else ''}.service"
        if _template(other) not in here and not may_be_shipped(other):
            message = f"{name} starts {other}, which neither this document nor the image has"
            yield subject.finding("missing-unit", Severity.WARNING, message, subject.outline.at(unit, "name"))


def _programs(subject: Subject) -> Iterator[Finding]:
    modes = {
        join_path("/", subject.value(file, "path")): subject.value(file, "permissions")
        for file in subject.outline.items("write_files")
    }
    mentions = _Mentions(subject.text)
    chmod = "chmod" in subject.text
    for name, unit in units(subject):
        guarded = _guarded(all_settings(subject, unit))
        for content in texts(subject, unit):
            for setting in settings_of(content.value):
                path = _custom_program(setting)
                place = subject.place_in(content, setting.line)
                if path in modes:
                    if not _EXECUTABLE.fullmatch(modes[path]) and not chmod:
                        message = f"{path} is written without permission to execute it: the start of {name} fails"
                        hint = 'give the file permissions: "0755"'
                        yield subject.at("not-executable", Severity.WARNING, message, place, hint)
                elif path and path not in guarded and not mentions.brings(path):
                    message = f"nothing in this document brings {path}, which {name} runs"
                    hint = f"write it, fetch it, or guard the unit by ConditionFileIsExecutable={path}"
                    yield subject.at("missing-program", Severity.WARNING, message, place, hint)


def _custom_program(setting: Setting) -> str:
    """Return the path of the program that a setting runs, if no image brings a program of that path; else nothing."""
    program = program_of(setting.value) if setting.section == "Service" and setting.name.startswith("Exec") else ""
    return clean_path(program) if program.startswith(_CUSTOM) and "%" not in program and "$" not in program else ""


def _guarded(settings: list[Setting]) -> set[str]:
    """Return the paths without which systemd does not start a unit."""
    names = [f"{kind}{guard}" for kind in ("Condition", "Assert") for guard in _GUARDS]
    return {value.lstrip("|") for name in names for value in values_of(settings, "Unit", name)}


class _Mentions:
    """Which paths a document speaks of, other than to run them, and into which folders it fetches something."""

    def __init__(self, text: str) -> None:
        self.paths: set[str] = set()
        self.folders: set[str] = set()
        for line in text.split("\n"):
            use = _EXEC.match(line)
            paths = _PATH.findall(line, use.end() if use else 0)
            self.paths.update(paths)
            if _FETCHING.search(line):
                self.folders.update(path.rstrip("/") for path in paths)
                self.folders.update(path.rpartition("/")[0] for path in paths)

    def brings(self, path: str) -> bool:
        """Return whether something else in the document has to do with a path, and so may bring it."""
        return path in self.paths or path.rpartition("/")[0] in self.folders


def _deadlocks(subject: Subject) -> Iterator[Finding]:
    waiting = _waiting({name: all_settings(subject, unit) for name, unit in units(subject)})
    for name, unit in units(subject):
        if name in waiting and subject.value(unit, "command") in STARTING:
            who, target = waiting[name]
            by_way_of = "" if who == name else f", by way of {who},"
            message = f"{name} is started by what {target} waits for, and{by_way_of} waits for {target}: both hang"
            node = subject.outline.at(unit, "command")
            hint = f"drop After={target}, or the command"
            yield subject.finding("unit-deadlock", Severity.ERROR, message, node, hint)


def _waiting(known: dict[str, list[Setting]]) -> dict[str, tuple[str, str]]:
    """Return, for each unit whose start waits for the cloud-config, (the unit that says so, what it waits for).

    A unit that is pulled in by another and stands in its After= lets that one wait too.
    """
    waiting: dict[str, tuple[str, str]] = {}
    waited_for: dict[str, list[str]] = {}
    for name, settings in known.items():
        after = words_of(settings, "Unit", "After")
        pulled = {word for key in _PULLING for word in words_of(settings, "Unit", key)}
        if target := next((word for word in after if word in _DEADLOCK), None):
            waiting[name] = (name, target)
        for word in pulled.intersection(after):
            waited_for.setdefault(word, []).append(name)
    queue = list(waiting)
    while queue:
        found = queue.pop()
        for name in waited_for.get(found, []):
            if name not in waiting:
                waiting[name] = waiting[found]
                queue.append(name)
    return waiting


RULES = (_missing_units, _programs, _deadlocks)
