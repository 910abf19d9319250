"""Conditions of the Gateway API, as they are and as they should be.

Source: https://gateway-api.sigs.k8s.io/reference/spec/ (types and reasons) and the API conventions of Kubernetes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from coupler.registrator.sources.kubernetes.objects import Json

_MOST = 32768


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition: whether it `holds`, the reason in the API's word and in ours."""

    type: str
    reason: str
    message: str
    holds: bool


def yes(type_: str, reason: str, message: str = "") -> Condition:
    """Return a condition that holds."""
    return Condition(type_, reason, message, holds=True)


def no(type_: str, reason: str, message: str = "") -> Condition:
    """Return a condition that does not hold."""
    return Condition(type_, reason, message, holds=False)


def written(wanted: Iterable[Condition], observed: Sequence[Json], generation: int) -> list[Json]:
    """Return conditions as the API has them.

    Where one turns, `lastTransitionTime` is None: whoever writes it fills in the time. Conditions of other types, which
    others may have written, stay.
    """
    known = {entry.get("type"): entry for entry in observed}
    made = []
    for condition in wanted:
        before = known.pop(condition.type, {})
        status = "True" if condition.holds else "False"
        made.append(
            {
                "type": condition.type,
                "status": status,
                "reason": condition.reason,
                "message": condition.message[:_MOST],
                "observedGeneration": generation,
                "lastTransitionTime": before.get("lastTransitionTime") if before.get("status") == status else None,
            }
        )
    return made + list(known.values())


def same(one: Any, other: Any) -> bool:
    """Return whether two statuses say the same, whatever times they give and in whichever order their fields are."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = (one.keys() | other.keys()) - {"lastTransitionTime"}
        return all(same(one.get(key), other.get(key)) for key in keys)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other) or (not one and not other and not isinstance(one, int) and not isinstance(other, int))


def with_times(patch: Any, now: str) -> Any:
    """Return a patch with the time in all conditions that turn now."""
    if isinstance(patch, dict):
        return {
            key: now if key == "lastTransitionTime" and entry is None else with_times(entry, now)
            for key, entry in patch.items()
        }
    if isinstance(patch, list):
        return [with_times(entry, now) for entry in patch]
    return patch
