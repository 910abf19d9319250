"""fleet, and the units that cluster.yaml gives it to schedule.

Source: https://github.com/coreos/fleet, v1.0.0, Documentation/unit-files-and-scheduling.md, and what its API refuses
(ValidateName and ValidateOptions in api/units.go, validRequirements in job/job.go).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path  # noqa: TC003 - pydantic looks at what the annotations name
from typing import Annotated, Any, TypeAlias, Union

from pydantic import BeforeValidator, Field, PlainValidator, ValidationInfo, WithJsonSchema

from coupler.model.fields import Flag, LabelKey, LabelValue, Version, VersionText, line_of, resolve
from coupler.model.files import text_of
from coupler.model.problem import did_you_mean, kind_of, problem
from coupler.model.section import Section

_TYPES = ("service", "socket", "timer", "path", "target", "mount", "automount", "swap", "slice", "scope", "device")
_TEMPLATE_TYPES = _TYPES[:5]
_MOST_NAME = 255
SECTION = "X-Fleet"
OPTIONS = ("Conflicts", "Global", "MachineID", "MachineMetadata", "MachineOf", "Replaces")
"""What fleet reads in a unit's section [X-Fleet]; the older names with X- before them are deprecated since 0.8."""
_TRUE = ("true", "yes", "1", "on", "t")


def _unit_name(value: object) -> str:
    text = line_of(value)
    stem, _, kind = text.rpartition(".")
    fits = re.fullmatch(r"[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]*)?", stem) and len(text) <= _MOST_NAME
    if not fits or kind not in _TYPES:
        hint = None if kind in _TYPES else f"did you mean `{text}.service`?"
        raise problem("fleet-unit-name", f"`{text}` is no name of a unit", hint)
    if "@" in stem and kind not in _TEMPLATE_TYPES:
        raise problem("fleet-unit-name", f"fleet has no templates of the type {kind}", "use another type of unit")
    return text


@dataclass(frozen=True)
class UnitFile:
    """A unit file beside cluster.yaml."""

    path: Path
    text: str


def _unit_text(value: object) -> str:
    if not isinstance(value, str):
        raise problem("wrong-type", f"expected the text of a unit file, found {kind_of(value)}")
    return _sound(str(value))


def _unit_file(value: object, info: ValidationInfo) -> UnitFile:
    path = resolve(line_of(value), info)
    return UnitFile(path, _sound(text_of(path, "a unit"), f"{path}: "))


def _sound(text: str, where: str = "") -> str:
    """Return the text of a unit file, ending in a newline. A line that systemd would ignore is a problem."""
    section = ""
    for number, line in _lines(text):
        if re.fullmatch(r"\[[^\[\]]+\]", line):
            section = line
        elif "=" not in line or not section:
            expected = "`Name=value`" if section else "a section such as `[Service]`"
            hint = "a unit file has sections, and settings in them"
            raise problem("fleet-unit-text", f"{where}line {number} of the unit, `{line}`, is not {expected}", hint)
    if not section:
        raise problem("fleet-unit-text", f"{where}the unit is empty", "write at least `[Service]` and `ExecStart=…`")
    return text if text.endswith("\n") else f"{text}\n"


def _lines(text: str) -> list[tuple[int, str]]:
    """Return (number, line) of a unit file: what goes on after a backslash joined, comments and blanks left out."""
    lines: list[tuple[int, str]] = []
    held, begun = "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if line[:1] in {"#", ";"} or not (held or line):
            continue
        begun = begun if held else number
        if line.endswith("\\"):
            held += f"{line[:-1]} "
            continue
        lines.append((begun, held + line))
        held = ""
    return lines


UnitName: TypeAlias = Annotated[str, BeforeValidator(_unit_name)]
UnitText: TypeAlias = Annotated[str, BeforeValidator(_unit_text)]
UnitFilePath: TypeAlias = Annotated[UnitFile, PlainValidator(_unit_file), WithJsonSchema({"type": "string"})]


class UnitState(StrEnum):
    """What fleet is to do with a unit: start it, load it on a machine, or only know it."""

    LAUNCHED = "launched"
    LOADED = "loaded"
    INACTIVE = "inactive"


class FleetUnit(Section):
    """A unit that fleet schedules: its text, or the file that has it."""

    content: UnitText | None = Field(default=None, description="The text of the unit.")
    file: UnitFilePath | None = Field(default=None, description="Or the path of the file, relative to cluster.yaml.")
    state: UnitState | None = Field(
        default=None,
        description="launched (the default), loaded, or inactive: known, and nowhere. A template is inactive.",
    )

    @property
    def own_text(self) -> str | None:
        """The unit's text, None where it has none of its own: then it is that of its template."""
        return self.content if self.content is not None else self.file.text if self.file else None


def _short(value: Any) -> Any:
    """Return a unit's section where only its text, of several lines, or only the path of its file is written."""
    if not isinstance(value, str):
        return value
    return {"content" if "\n" in value else "file": value}


Unit: TypeAlias = Annotated[FleetUnit, BeforeValidator(_short, json_schema_input_type=Union[str, FleetUnit])]  # noqa: UP007


@dataclass(frozen=True)
class Scheduled:
    """A unit as fleet gets it: name, text and state, and the options of its section [X-Fleet]."""

    name: str
    text: str
    state: UnitState

    @cached_property
    def options(self) -> tuple[tuple[str, str], ...]:
        """Name and value of each line of the section [X-Fleet], in order."""
        section, found = "", []
        for _, line in _lines(self.text):
            if line.startswith("["):
                section = line[1:-1]
            elif section == SECTION:
                name, _, value = line.partition("=")
                found.append((name.strip(), value.strip()))
        return tuple(found)

    def values(self, name: str) -> tuple[str, ...]:
        """Return the words of an option, which may be given several times and in quotes."""
        return tuple(
            word.strip('"') for key, value in self.options if key == name for word in re.findall(r'"[^"]*"|\S+', value)
        )

    @property
    def is_global(self) -> bool:
        """Whether it runs on every machine that fits."""
        return any(value.lower() in _TRUE for value in self.values("Global")[-1:])

    @property
    def metadata(self) -> dict[str, frozenset[str]]:
        """Key → possible values that a machine must have; fleet reads nothing that is not KEY=VALUE."""
        wanted: dict[str, frozenset[str]] = {}
        for pair in self.values("MachineMetadata"):
            key, _, value = pair.partition("=")
            wanted[key] = wanted.get(key, frozenset()) | {value}
        return wanted


class Fleet(Section):
    """fleet schedules systemd units over the cluster."""

    enabled: Flag = Field(default=True, description="Whether fleetd runs on the nodes.")
    version: VersionText = Field(default=Version("1.0.0"), description="The version of fleet; 1.0.0 is its last.")
    metadata: Mapping[LabelKey, LabelValue] = Field(
        default_factory=dict, description="Metadata of every node, beside each node's own labels."
    )
    units: Mapping[UnitName, Unit] = Field(
        default_factory=dict, description="The units that fleet schedules, by name: text, file and state."
    )

    @property
    def scheduled(self) -> tuple[Scheduled, ...]:
        """The units as fleet gets them, templates first; one without a text, for which there is none, is left out."""
        found = []
        for name, unit in self.units.items():
            template = template_of(name)
            text = unit.own_text
            if text is None and template in self.units:
                text = self.units[template].own_text
            state = unit.state or (UnitState.INACTIVE if is_template(name) else UnitState.LAUNCHED)
            if text is not None:
                found.append(Scheduled(name, text, state))
        return tuple(sorted(found, key=lambda unit: not is_template(unit.name)))


def is_template(name: str) -> bool:
    """Return whether a unit's name is that of a template, `web@.service`."""
    return name.rpartition(".")[0].endswith("@")


def template_of(name: str) -> str:
    """Return the name of the template of `web@1.service`, which is `web@.service`; for another unit, an empty text."""
    stem, _, kind = name.rpartition(".")
    prefix, is_instance, _ = stem.partition("@")
    return f"{prefix}@.{kind}" if is_instance and not is_template(name) else ""


def unknown_option(name: str) -> str | None:
    """Return what to do about an option of [X-Fleet] that fleet does not read, or None for one that it reads."""
    if name in OPTIONS:
        return None
    old = re.sub(r"^X-(Condition)?", "", name)
    if old in OPTIONS:
        return f"write `{old}`, as since fleet 0.8"
    return did_you_mean(name, OPTIONS) or f"the options are {', '.join(OPTIONS)}"
