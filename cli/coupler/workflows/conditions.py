"""When a unit runs on a node: its `Condition…=` settings, and the roles among them.

Source: systemd.unit(5), 'Conditions and Asserts'. A node has the file `/run/coupler/roles/ROLE` for each of its roles
(see the script coupler-identity).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coupler.cloudinit.unitfile import settings_of

if TYPE_CHECKING:
    from collections.abc import Iterable

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
