"""Rules about more than one key at a time. Each is a small function that yields what it finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from coupler.errors import Severity
    from coupler.model.cluster import Cluster
    from coupler.model.source import KeyPath


@dataclass(frozen=True)
class Issue:
    """What a rule found, at the path of the key that is to be changed."""

    code: str
    severity: Severity
    path: KeyPath
    message: str
    hint: str | None = None


def issues_of(cluster: Cluster) -> list[Issue]:
    """Return everything that the rules find."""
    return [issue for rule in RULES for issue in rule(cluster)]


RULES: tuple[Callable[[Cluster], Iterator[Issue]], ...] = ()
