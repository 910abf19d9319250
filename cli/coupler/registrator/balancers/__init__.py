"""What the reconciler asks of a balancer, and what it gets back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from coupler.errors import CouplerError

if TYPE_CHECKING:
    from collections.abc import Mapping, Set

    from coupler.registrator.model import Desired


class BalancerError(CouplerError):
    """The balancer as a whole cannot be reached or moved; what it has, it keeps."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What came of a move: changes made, backends that failed and why, backends that need another look soon.

    `pending` are not failures: a server that still has connections, a reload that has to wait for its turn. Both may
    name what is not in the desired state any more: applying such a name looks at everything.
    """

    changes: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)
    pending: frozenset[str] = frozenset()


class Balancer(Protocol):
    """One balancer. Every method but `identity` may raise `BalancerError`.

    `settle` is how long, in seconds, changes are collected after one was applied: 0 where a change costs little.
    `shared`: other registrators may write to it too, so that one at a time is elected to do it.
    """

    name: str
    settle: float
    shared: bool

    async def identity(self) -> str | None:
        """Return what names the process that balances now; None while there is none. Another one needs an audit."""

    async def apply(self, desired: Desired, backends: Set[str] | None, *, remove: bool) -> Applied:
        """Move these backends (None: everything, after reading everything) to `desired`.

        What is new is there before what is old goes. Without `remove` nothing goes, and nothing is reloaded: a
        reload would drop what a source has not said yet.
        """

    async def drift(self, desired: Desired) -> frozenset[str]:
        """Return the ids of backends that are not as desired, and names of what is ours and unwanted; change nothing.

        To be called beside `apply`: it reads in pieces, and lets others run between them. What it returns may be
        outdated, and is passed to `apply`, which looks again.
        """

    async def plan(self, desired: Desired) -> list[str]:
        """Return what `apply` would do, in words and commands, and do nothing."""

    async def persist(self, desired: Desired) -> None:
        """Write down what the balancer's next start needs."""

    async def close(self) -> None:
        """Let go of the balancer and leave it as it is."""
