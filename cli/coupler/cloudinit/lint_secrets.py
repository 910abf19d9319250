"""Rules about secrets: what must not stand in a document that goes to git, or that any program on a node can read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from coupler.errors import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coupler.cloudinit.subject import Subject
    from coupler.errors import Finding

_OPAQUE = r"(?![$%<{*/~.])(?=[^\s\"']*\d)[A-Za-z0-9._~+/=-]{16,}"
_PATTERNS = {
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY( BLOCK)?-----"),
    "a private key of a kubeconfig": re.compile(r"\bclient-key-data:\s*[\"']?[A-Za-z0-9+/=]{40,}"),
    "a token of GitHub": re.compile(r"\b(gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,})"),
    "a token of GitLab": re.compile(r"\bglpat-[A-Za-z0-9_-]{20,}"),
    "a token of Slack": re.compile(r"\bxox[abprs]-[A-Za-z0-9-]{10,}"),
    "an access key of AWS": re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a secret key of AWS": re.compile(r"aws_secret_access_key[\"']?\s*[=:]\s*[\"']?[A-Za-z0-9/+]{40}", re.IGNORECASE),
    "a JSON web token": re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+"),
    "a bearer token": re.compile(rf"\bBearer\s+{_OPAQUE}", re.IGNORECASE),
    "a token": re.compile(
        rf"^[^#]*\b(?<!cluster-)(auth_?|access_?|api_?|bootstrap_?)?token[\"']?\s*[=:]\s*[\"']?{_OPAQUE}", re.I
    ),
    "a password in a URL": re.compile(
        r"\b[a-z][a-z0-9+.-]*://[^\s/:@$\"'<>]+:(?![$%<{*])[^\s/@$\"'<>]+@", re.IGNORECASE
    ),
}
"""What a secret looks like. Variables, placeholders and paths are none, and neither is the name of an etcd cluster."""

_PASSWORD_HASH = re.compile(r"[*!]+|!?\$[0-9a-z]+\$.+")
_PASSWORD_KEYS = frozenset(("etcd_password",))
_IDENTIFIERS = frozenset(("initial_cluster_token",))


def _text(subject: Subject) -> Iterator[Finding]:
    known = {(entry.name.line) for entry in subject.outline.entries() if entry.key and entry.key.name in _IDENTIFIERS}
    for number, line in enumerate(subject.text.split("\n"), start=1):
        found = _secret_in(line)
        if found is not None and number not in known:
            yield _secret(subject, f"{found[0]} stands in the document", (number, found[1] + 1))


def _secret_in(line: str) -> tuple[str, int] | None:
    """Return (what it is, where it begins) of the first secret in a line."""
    for what, pattern in _PATTERNS.items():
        if match := pattern.search(line):
            return what, match.start() + len(match[0]) - len(match[0].lstrip())
    return None


def _encoded(subject: Subject) -> Iterator[Finding]:
    for _, content, plain in subject.decoded():
        found = next(filter(None, map(_secret_in, plain.split("\n"))), None)
        if found is not None:
            place = (content.line, content.column)
            yield _secret(subject, f"{found[0]} stands in encoded content", place)


def _passwords(subject: Subject) -> Iterator[Finding]:
    for entry in subject.outline.entries():
        name = entry.key.name if entry.key else ""
        place = (entry.value.line, entry.value.column)
        if name in _PASSWORD_KEYS and entry.value.value:
            yield _secret(subject, "a password stands in the document", place)
        if name == "passwd" and entry.value.value and not _PASSWORD_HASH.fullmatch(entry.value.value):
            yield _secret(subject, "passwd wants a hash (mkpasswd -m sha-512), and this is none", place)


def _secret(subject: Subject, message: str, place: tuple[int, int]) -> Finding:
    hint = "user-data and git are read by many: bring secrets to the nodes another way"
    return subject.at("secret", Severity.ERROR, message, place, hint)


RULES = (_text, _encoded, _passwords)
