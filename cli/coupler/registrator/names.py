"""Stable names that every balancer takes: letters, digits, `-`, `_` and `.`."""

from __future__ import annotations

import re
from hashlib import blake2b

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}")
_LOOKS_HASHED = re.compile(r"-[0-9a-f]{8}$")
_OTHER = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_STEM = 39


def digest(text: str) -> str:
    """Return eight hexadecimal digits that stand for `text`."""
    return blake2b(text.encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()


def safe_name(text: str) -> str:
    """Return `text` where it is a name already, else what is readable of it with its digest.

    A name that ends like one of ours gets a digest too, so that two texts share a name only if their digests collide.
    """
    if _SAFE.fullmatch(text) and not _LOOKS_HASHED.search(text):
        return text
    stem = _OTHER.sub("-", text)[:_LONGEST_STEM].strip("-._") or "x"
    return f"{stem}-{digest(text)}"
