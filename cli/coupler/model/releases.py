"""What changed between the minor versions of Kubernetes: options of its programs, and fields of the kubelet's file.

The data is `releases.toml`. An option that is not in it is there in every version from `OLDEST` to `NEWEST`, and newer
versions are taken to be like the newest.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_DATA: dict[str, Any] = tomllib.loads(Path(__file__).with_name("releases.toml").read_text(encoding="utf-8"))
OLDEST: int = _DATA["oldest"]
NEWEST: int = _DATA["newest"]
"""The minor versions of Kubernetes 1 between which what changed is known."""
EVERY = "*"
"""Stands for every program."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Change:
    """Options of `program` that some minor versions take: from `since` on, and no longer from `until` on.

    Coupler sets them from `set_since` to before `set_until`, where that is less. `why` may be empty; `source` is a URL.
    """

    program: str
    options: tuple[str, ...]
    source: str
    since: int | None = None
    until: int | None = None
    set_since: int | None = None
    set_until: int | None = None
    why: str = ""

    def takes(self, minor: int) -> bool:
        """Whether the program of this minor version takes the options."""
        return _within(minor, self.since, self.until)

    def sets(self, minor: int) -> bool:
        """Whether Coupler sets the options for this minor version, if it does so at all."""
        return self.takes(minor) and _within(minor, self.set_since, self.set_until)


def _within(minor: int, since: int | None, until: int | None) -> bool:
    return (since is None or since <= minor) and (until is None or minor < until)


CHANGES = tuple(Change(**{**row, "options": tuple(row["options"])}) for row in _DATA["change"])
GATES_UNTIL: Mapping[str, int] = {gate: int(minor) for minor, names in _DATA["gates_until"].items() for gate in names}
"""Feature gate → the first minor version that does not know it any more."""

FIELDS = frozenset(_DATA["kubelet_configuration"]["always"]).union(
    option
    for change in CHANGES
    for option in change.options
    if change.program == "kubelet" and not option.startswith("--")
)
"""Every field of KubeletConfiguration (kubelet.config.k8s.io/v1beta1) that some version has."""


def flags_for(program: str, flags: Mapping[str, _T], minor: int) -> dict[str, _T]:
    """Return those of `flags` (names without dashes) that Coupler sets for this minor version of the program."""
    return {name: value for name, value in flags.items() if _chosen(program, f"--{name}", minor)}


def fields_for(program: str, fields: Mapping[str, _T], minor: int) -> dict[str, _T]:
    """Return those fields of a configuration file that Coupler sets for this minor version of the program."""
    return {name: value for name, value in fields.items() if _chosen(program, name, minor)}


def changes_of(program: str, option: str) -> Iterator[Change]:
    """Yield what is known of an option: `--name` for one of the command line, else a field's name."""
    return (change for change in CHANGES if change.program in {program, EVERY} and option in change.options)


def _chosen(program: str, option: str, minor: int) -> bool:
    return all(change.sets(minor) for change in changes_of(program, option))
