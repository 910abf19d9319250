"""Rules about units one by one: names, text, and what is asked of them that cannot be."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from coupler.cloudinit import lint_references
from coupler.cloudinit.parse import NodeKind
from coupler.cloudinit.plan import is_network_unit
from coupler.cloudinit.shipped import directives, sections_with
from coupler.cloudinit.unitfile import is_unit_name, load_problem, logical_lines, settings_of, values_of
from coupler.cloudinit.units import all_settings, texts, units
from coupler.errors import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coupler.cloudinit.parse import Node
    from coupler.cloudinit.subject import Subject
    from coupler.cloudinit.unitfile import Setting
    from coupler.errors import Finding

_COMMON = ("Unit", "Install")
_MAX_NAME = 255
_ALLOWED_MASKED = ("", "stop")
"""The commands that systemd takes for a masked unit."""
_ENUMERATIONS = {
    ("Service", "Type"): ("simple", "exec", "forking", "oneshot", "dbus", "notify", "notify-reload", "idle"),
    ("Service", "Restart"): ("no", "on-success", "on-failure", "on-abnormal", "on-watchdog", "on-abort", "always"),
    ("Service", "KillMode"): ("control-group", "process", "mixed", "none"),
}


def _unit_names(subject: Subject) -> Iterator[Finding]:
    for unit in subject.outline.items("coreos", "units"):
        name = subject.outline.at(unit, "name")
        drop_ins = subject.outline.at(unit, "drop_ins")
        if not name.value:
            yield subject.finding("unit-name", Severity.WARNING, "a unit without a name is skipped", unit)
        elif "/" in name.value:
            message = f"the unit name {name.value} leaves the folder of units"
            yield subject.finding("unit-path", Severity.ERROR, message, name)
        elif not is_unit_name(name.value) and not _is_network_name(name.value):
            message = f"{name.value} is no unit name for systemd"
            yield subject.finding("unit-name", Severity.ERROR, message, name, "end it with .service or another type")
        for drop_in in drop_ins.children if drop_ins.kind is NodeKind.SEQUENCE else []:
            yield from _drop_in_name(subject, subject.outline.follow(drop_in))


def _is_network_name(name: str) -> bool:
    return is_network_unit(name) and "\0" not in name and len(name) <= _MAX_NAME


def _drop_in_name(subject: Subject, drop_in: Node) -> Iterator[Finding]:
    name = subject.outline.at(drop_in, "name")
    if not name.value:
        yield subject.finding("drop-in-name", Severity.WARNING, "a drop-in without a name is skipped", drop_in)
    elif "/" in name.value:
        message = f"the drop-in name {name.value} leaves the unit's folder"
        yield subject.finding("unit-path", Severity.ERROR, message, name)
    elif not name.value.endswith(".conf"):
        message = f"systemd reads no drop-in that does not end with .conf: {name.value}"
        fix = subject.replaced(name, f"{name.value}.conf") if name.plain else ()
        yield subject.finding("drop-in-name", Severity.ERROR, message, name, f"write {name.value}.conf", fix)


def _unit_text(subject: Subject) -> Iterator[Finding]:
    for name, unit in units(subject):
        content = subject.outline.at(unit, "content")
        if not is_unit_name(name):
            continue
        problem = load_problem(name, all_settings(subject, unit)) if content.value else None
        if problem is not None:
            yield subject.finding("unit-text", Severity.ERROR, f"systemd will not load {name}: {problem}", content)
        for text in texts(subject, unit):
            yield from _lines(subject, name, text)


def _lines(subject: Subject, name: str, content: Node) -> Iterator[Finding]:
    """Yield findings about the lines of a unit's content, or of a drop-in."""
    section = ""
    kind = name.rpartition(".")[2].capitalize()
    allowed = (*_COMMON, kind)
    for number, line in logical_lines(content.value):
        place = subject.place_in(content, number)
        if line.startswith("[") and not line.endswith("]"):
            message = f"systemd will not load {name}: this section header has no end"
            yield subject.at("unit-text", Severity.ERROR, message, place, f"write {line}]")
        elif line.startswith("["):
            section = line[1:-1]
            if section not in allowed and not section.startswith("X-"):
                message = f"systemd ignores the section [{section}] of a {kind.lower()} unit"
                near = get_close_matches(section, allowed, 1)
                yield subject.at(
                    "unit-section", Severity.WARNING, message, place, f"write [{near[0]}]" if near else None
                )
        elif "=" not in line:
            message = "systemd ignores a line that is no NAME=VALUE"
            yield subject.at("unit-line", Severity.WARNING, message, place)
        elif not section:
            message = "systemd ignores a setting that stands before the first [Section]"
            yield subject.at("unit-line", Severity.WARNING, message, place)
    for setting in settings_of(content.value):
        if setting.section in allowed:
            yield from _setting(subject, content, setting)


def _setting(subject: Subject, content: Node, setting: Setting) -> Iterator[Finding]:
    place = subject.place_in(content, setting.line)
    known = directives(setting.section)
    allowed = _ENUMERATIONS.get((setting.section, setting.name))
    if setting.name not in known and not setting.name.startswith("X-"):
        elsewhere = sections_with(setting.name)
        near = get_close_matches(setting.name, known, 1, 0.8) or [n for n in known if n.lower() == setting.name.lower()]
        message = f"systemd ignores {setting.name}= in [{setting.section}]: it does not know it there"
        hint = f"write {near[0]}=" if near else f"it belongs into [{elsewhere[0]}]" if elsewhere else None
        yield subject.at("unit-key", Severity.WARNING if hint else Severity.INFO, message, place, hint)
    elif allowed and setting.value and setting.value not in allowed:
        message = f"systemd ignores {setting.name}={setting.value}: it is one of {', '.join(allowed)}"
        near = get_close_matches(setting.value, allowed, 1)
        hint = f"write {setting.name}={near[0]}" if near else None
        yield subject.at("unit-value", Severity.WARNING, message, place, hint)
    elif setting.section == "Service" and setting.name.startswith("Exec") and setting.value:
        program = lint_references.program_of(setting.value)
        if "/" in program and not program.startswith(("/", "%", "$")):
            message = f"systemd will not load the unit: {program} is neither a name nor an absolute path"
            yield subject.at("unit-text", Severity.ERROR, message, place)


def _operations(subject: Subject) -> Iterator[Finding]:
    for name, unit in units(subject):
        command, content = subject.outline.at(unit, "command"), subject.outline.at(unit, "content")
        masked, enabled = subject.truth(unit, "mask"), subject.truth(unit, "enable")
        settings = all_settings(subject, unit)
        if masked and content.value:
            message = f"the content of {name} is deleted again: mask puts a link in its place"
            yield subject.finding("masked-content", Severity.WARNING, message, content)
        if masked and (command.value not in _ALLOWED_MASKED or enabled):
            node = subject.outline.at(unit, "enable") if command.value in _ALLOWED_MASKED else command
            deed = "enable" if command.value in _ALLOWED_MASKED else command.value
            message = f"{name} is masked: {deed} fails, and ends the run"
            yield subject.finding("masked-start", Severity.ERROR, message, node)
        if command.value == "reload" and content.value and not values_of(settings, "Service", "ExecReload"):
            message = f"{name} has no ExecReload=: its reload fails and ends the run"
            yield subject.finding("unit-reload", Severity.ERROR, message, command, "write command: restart")
        if not is_network_unit(name):
            yield from _installation(subject, name, unit, settings)


def _installation(subject: Subject, name: str, unit: Node, settings: list[Setting]) -> Iterator[Finding]:
    enable, command = subject.outline.at(unit, "enable"), subject.outline.at(unit, "command")
    enabled, content = subject.truth(unit, "enable"), subject.value(unit, "content")
    wanted = [setting for setting in settings if setting.section == "Install" and setting.value]
    default = [setting for setting in wanted if setting.name == "DefaultInstance"]
    if "@." in name and command.value:
        message = f"{name} is a template: {command.value} fails without an instance, and ends the run"
        yield subject.finding("template-unit", Severity.ERROR, message, command, f"name {name.replace('@.', '@NAME.')}")
    elif "@." in name and enabled and wanted and not default:
        message = f"{name} is a template without DefaultInstance=: enable fails, and ends the run"
        yield subject.finding("template-unit", Severity.ERROR, message, enable)
    elif enabled and content and not wanted:
        message = f"enable does nothing: {name} has no [Install] section"
        hint = "add [Install] with WantedBy=multi-user.target, or drop enable"
        yield subject.finding("enable-without-install", Severity.WARNING, message, enable, hint)


def _locksmith(subject: Subject) -> Iterator[Finding]:
    if subject.value(subject.outline.at(subject.outline.root, "coreos", "update"), "reboot_strategy") != "off":
        return
    for name, unit in units(subject):
        command = subject.value(unit, "command")
        if name == "locksmithd.service" and command not in _ALLOWED_MASKED:
            message = f"reboot_strategy off masks locksmithd: {command} fails, and ends the run"
            yield subject.finding("masked-start", Severity.ERROR, message, subject.outline.at(unit, "command"))


RULES = (_unit_names, _unit_text, _operations, _locksmith, *lint_references.RULES)
