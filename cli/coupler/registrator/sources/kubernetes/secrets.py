"""Certificates of Secrets: only those that somebody refers to are asked for, each by its name.

So the registrator may be allowed to read exactly these, and no key that is nobody's business comes near it.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from coupler.registrator.model import Certificate, ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coupler.registrator.sources.kubernetes.objects import Json, Key

_CHAIN, _KEY = "tls.crt", "tls.key"
_MISSING = "it is not there"


class Secrets:
    """What was read of Secrets. A bad one leaves the certificate that it had before in use."""

    def __init__(self) -> None:
        self._good: dict[Key, Certificate] = {}
        self._wrong: dict[Key, str] = {}
        self._read: set[Key] = set()

    def put(self, key: Key, item: Json | None) -> bool:
        """Take a Secret, or None for one that is not there; return whether that changes anything."""
        before = self.certificate(key), self.wrong(key), key in self._read
        self._read.add(key)
        try:
            self._good[key] = read_secret(item)
            self._wrong.pop(key, None)
        except ValueError as error:
            self._wrong[key] = str(error)
        return before != (self.certificate(key), self.wrong(key), True)

    def certificate(self, key: Key) -> Certificate | None:
        """Return the last good certificate."""
        return self._good.get(key)

    def wrong(self, key: Key) -> str | None:
        """Return what is wrong with a Secret."""
        return self._wrong.get(key)

    def forget(self, but: Iterable[Key]) -> None:
        """Let go of all Secrets but these."""
        kept = set(but)
        for key in self._read - kept:
            self._read.discard(key)
            self._good.pop(key, None)
            self._wrong.pop(key, None)


def read_secret(item: Json | None) -> Certificate:
    """Return the certificate of a Secret of type kubernetes.io/tls. Raises ValueError with what is wrong."""
    if item is None:
        raise ValueError(_MISSING)
    data = item.get("data") or {}
    missing = [name for name in (_CHAIN, _KEY) if not data.get(name)]
    if missing:
        raise ValueError(f"it has no {' and no '.join(missing)}")
    try:
        chain, key = (base64.b64decode(data[name], validate=True).decode() for name in (_CHAIN, _KEY))
        return Certificate(chain, key)
    except (binascii.Error, UnicodeDecodeError):
        raise ValueError(f"{_CHAIN} or {_KEY} is no PEM text") from None
    except ModelError as error:
        raise ValueError(f"{error.what}: {error.why}") from None
