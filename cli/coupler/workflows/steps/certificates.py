"""Make the certificates that are missing or expire soon."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from coupler.result import State, StepOutcome, count
from coupler.workflows.certificates import Store

if TYPE_CHECKING:
    from coupler.workflows.certificates import Chosen
    from coupler.workflows.run import Run


class Certificates:
    """An authority, and a certificate and key for whoever needs one. They stay on this machine until `bootstrap`."""

    title = "certificates"

    def __init__(self, again: Chosen = lambda _: False) -> None:
        """Those `again` are made anew though they would still serve."""
        self._again = again

    def run(self, run: Run) -> StepOutcome:
        """Make what is missing in `.coupler/pki`."""
        store = Store(run.workspace.pki, run.cluster)
        now = datetime.now(UTC)
        if run.dry_run:
            missing = list(store.missing(now, self._again))
            state = State.PLANNED if missing else State.UNCHANGED
            return StepOutcome(self.title, state, f"would make {count(len(missing), 'certificate')}" if missing else "")
        made = store.make(now, self._again)
        return StepOutcome(
            self.title,
            State.DONE if made else State.UNCHANGED,
            f"made {count(len(made), 'certificate')}" if made else "",
        )
