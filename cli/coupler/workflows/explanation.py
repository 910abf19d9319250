"""What a code that `cluster check` prints means."""

from __future__ import annotations

from dataclasses import asdict
from difflib import get_close_matches

from coupler.cloudinit.explain import explanations
from coupler.errors import UsageError
from coupler.result import Result, Text


def explain(code: str) -> Result:
    """Return the explanation of a code.

    Raises:
        UsageError: the checker has no such code.
    """
    known = explanations()
    if code in known:
        return Text(known[code].text(), asdict(known[code]))
    near = get_close_matches(code.lower().replace("_", "-"), known, 3, 0.5)
    next_step = f"cluster check --explain {near[0]}" if near else f"the codes are {', '.join(sorted(known))}"
    why = "codes about cloud-configs are explained; what is wrong with cluster.yaml says its own message"
    raise UsageError(f"there is no code {code!r} to explain", why, next_step)
