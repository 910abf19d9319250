"""What the reconciler asks of a source, and what it is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from coupler.errors import CouplerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from coupler.registrator.model import Offer


class SourceError(CouplerError):
    """A source cannot be asked now; what it said before still counts."""


@dataclass(frozen=True, slots=True)
class Change:
    """What is new in a source's offer: only the endpoints of these backends, or, with None, anything.

    `relisted`: it was found by reading everything anew, not told as an event. What is missing then may be missing by
    mistake: see `Source.confirm`. `since` is when it happened at its origin, in seconds of the Unix clock, if known.
    """

    backends: frozenset[str] | None = None
    relisted: bool = False
    since: float | None = None


class Source(Protocol):
    """One place that says what is to be balanced."""

    name: str

    @property
    def synced(self) -> bool:
        """Whether everything that the source has was read once. Until then nothing is removed anywhere."""

    @property
    def problem(self) -> str | None:
        """Why the source is not up to date now; None if it is."""

    def offer(self) -> Offer:
        """Return what the source wants now. Parts that did not change are the same objects as before."""

    async def run(self, notify: Callable[[Change], None]) -> None:
        """Follow the source for ever. Failures are retried within, and never make the offer smaller."""

    async def confirm(self) -> None:
        """Read everything once more, by quorum, into the offer. Raises SourceError; then the offer is as before."""
