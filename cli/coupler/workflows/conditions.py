"""When a unit runs on a node: its `Condition…=` settings, and the roles among them.

Source: systemd.unit(5), 'Conditions and Asserts'. A node has the file `/run/coupler/roles/ROLE` for each of its roles
(see the script coupler-identity).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from coupler.cloudinit.unitfile import settings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROLES = "/run/coupler/roles/"
"""The folder on a node that has a file for each of its roles."""


@dataclass(frozen=True)
class Condition:
    """One condition: the setting (`ConditionPathExists`), its value without `|` and `!`, and what those two say.

    Every plain condition must hold, and of those that are a `trigger` at least one.
    """

    setting: str
    value: str
    negated: bool = False
    trigger: bool = False

    @property
    def role(self) -> str | None:
        """The role of which this condition asks whether the node has it."""
        asks = self.setting == "ConditionPathExists" and self.value.startswith(ROLES)
        return self.value.removeprefix(ROLES) or None if asks else None

    def __str__(self) -> str:
        return f"{self.setting}={'|' * self.trigger}{'!' * self.negated}{self.value}"


def conditions_of(texts: Iterable[str]) -> tuple[Condition, ...]:
    """Return the conditions of a unit from its file and its drop-ins, in order; an empty one takes all back."""
    conditions: list[Condition] = []
    for text in texts:
        for setting in settings_of(text):
            if setting.section != "Unit" or not setting.name.startswith("Condition"):
                continue
            if not setting.value:
                conditions.clear()
                continue
            after_trigger = setting.value.removeprefix("|").lstrip()
            value = after_trigger.removeprefix("!").lstrip()
            conditions.append(
                Condition(setting.name, value, after_trigger.startswith("!"), setting.value.startswith("|"))
            )
    return tuple(conditions)


def roles_of(conditions: Iterable[Condition]) -> tuple[str, ...]:
    """Return the roles of which a node needs at least one for the unit to run; empty where it needs none."""
    plain: list[str] = []
    triggers: list[str | None] = []
    for condition in conditions:
        role = None if condition.negated else condition.role
        if condition.trigger:
            triggers.append(role)
        elif role:
            plain.append(role)
    needed = plain or ([] if None in triggers else [role for role in triggers if role])
    return tuple(dict.fromkeys(needed))


class Fact(StrEnum):
    """What is known beforehand of a path on a node: it is there, it is not, it comes later, or nothing."""

    YES = "yes"
    NO = "no"
    LATER = "later"
    UNKNOWN = "unknown"


class Start(StrEnum):
    """What becomes of the start of a unit on a node."""

    RUNS = "runs"
    WAITS = "waits"
    DEPENDS = "depends"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Verdict:
    """Whether a unit runs on a node, and the conditions that keep it from running or may do so."""

    start: Start
    reasons: tuple[str, ...] = ()


def verdict(conditions: Iterable[Condition], fact: Callable[[Condition], Fact]) -> Verdict:
    """Return what becomes of a unit with these conditions; `fact` tells whether what a condition names is there."""
    held = [(condition, _holds(condition, fact(condition))) for condition in conditions]
    plain = [(condition, holds) for condition, holds in held if not condition.trigger]
    triggers = [(condition, holds) for condition, holds in held if condition.trigger]
    broken = [_reason(condition) for condition, holds in plain if holds is Fact.NO]
    if triggers and all(holds is Fact.NO for _, holds in triggers):
        broken.append(" and ".join(_reason(condition) for condition, _ in triggers))
    if broken:
        return Verdict(Start.SKIPPED, tuple(broken))
    open_ = [(condition, holds) for condition, holds in plain if holds is not Fact.YES]
    reasons = [_open(condition, holds) for condition, holds in open_]
    if triggers and all(holds is not Fact.YES for _, holds in triggers):
        reasons.append(" or ".join(str(condition) for condition, holds in triggers if holds is not Fact.NO))
        return Verdict(Start.DEPENDS, tuple(reasons))
    if not open_:
        return Verdict(Start.RUNS)
    waits = all(holds is Fact.LATER for _, holds in open_)
    return Verdict(Start.WAITS if waits else Start.DEPENDS, tuple(reasons))


def _holds(condition: Condition, fact: Fact) -> Fact:
    """Return whether a condition holds where what it names is as `fact` says."""
    if not condition.negated:
        return fact
    return {Fact.YES: Fact.NO, Fact.NO: Fact.YES}.get(fact, Fact.UNKNOWN)


def _open(condition: Condition, holds: Fact) -> str:
    """Return a condition that is not decided yet; a program stands for itself."""
    is_program = condition.setting == "ConditionFileIsExecutable" and not condition.negated
    return condition.value if holds is Fact.LATER or is_program else str(condition)


def _reason(condition: Condition) -> str:
    """Return why a condition does not hold."""
    if condition.role:
        return f"{'has' if condition.negated else 'no'} role {condition.role}"
    return str(condition)
