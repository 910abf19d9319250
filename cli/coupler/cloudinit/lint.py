"""What the real validator lets pass and a node then suffers from: the list of the rules.

Each rule goes through a document and yields findings. They stand in modules by what they look at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coupler.cloudinit import lint_files, lint_secrets, lint_units, lint_users, lint_values

if TYPE_CHECKING:
    from coupler.cloudinit.subject import Subject
    from coupler.errors import Finding

_RULES = (*lint_values.RULES, *lint_files.RULES, *lint_users.RULES, *lint_units.RULES, *lint_secrets.RULES)


def lint(subject: Subject) -> list[Finding]:
    """Return the findings of every rule, each once: what an alias brings again is said where it stands."""
    return list(dict.fromkeys(finding for rule in _RULES for finding in rule(subject)))
