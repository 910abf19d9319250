"""What a rule yields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coupler.errors import Severity

if TYPE_CHECKING:
    from coupler.model.source import KeyPath


@dataclass(frozen=True)
class Issue:
    """What a rule found: `path` is the key to be changed, `code` the rule's name."""

    code: str
    severity: Severity
    path: KeyPath
    message: str
    hint: str | None = None


def error(code: str, path: KeyPath, message: str, hint: str | None = None) -> Issue:
    """Return an issue that stops the work."""
    return Issue(code, Severity.ERROR, path, message, hint)


def warning(code: str, path: KeyPath, message: str, hint: str | None = None) -> Issue:
    """Return an issue that explains a risk."""
    return Issue(code, Severity.WARNING, path, message, hint)
