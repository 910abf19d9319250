"""Is a node's clock right? Compared with ours, while we ask it something anyway."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coupler.workflows.script import Answer

MAX_SKEW = 60
"""Seconds by which a node's clock may be off: above that, logs and certificates tell wrong stories."""

MEND = "let it synchronise: timedatectl set-ntp true"


def skew_of(answer: Answer, before: float, after: float) -> float:
    """Return by how many seconds a node's clock is ahead of ours at least (negative: behind).

    It was read, in whole seconds, somewhere between our `before` and `after`, in seconds of the Unix epoch.
    """
    try:
        theirs = float(answer.one("time"))
    except ValueError:
        return 0.0
    if theirs + 1 < before:
        return theirs + 1 - before
    return max(0.0, theirs - after)


def problem_with(skew: float) -> str | None:
    """Return what is wrong with a clock, None where it is right enough."""
    if abs(skew) <= MAX_SKEW:
        return None
    return f"its clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} ours"
