"""Secrets of type kubernetes.io/tls → certificates.

Only Secrets that something names are read: each by a watch of its own, with the field selector `metadata.name`. Such a
watch needs no right to list Secrets at large: RBAC takes it for one of that name (`resourceNames`), so the rights can
be as small as a site wants them. The price is a connection for each certificate.

A Secret that turns bad, or goes, leaves its last good certificate in use: a host with an old certificate is better than
one without. Whoever names it is told.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coupler.registrator.model import Certificate, ModelError
from coupler.registrator.sources.kubernetes.objects import Key, key_of

if TYPE_CHECKING:
    from collections.abc import Set

    from coupler.registrator.sources.kubernetes.objects import Json

TYPE = "kubernetes.io/tls"


@dataclass(frozen=True, slots=True)
class _Known:
    certificate: Certificate | None = None
    problem: str | None = None


def read_certificate(item: Json) -> Certificate:
    """Return the certificate that a Secret holds. Raises ModelError."""
    data = item.get("data") or {}
    texts = []
    for name in ("tls.crt", "tls.key"):
        if not data.get(name):
            raise ModelError(f"it has no {name}", f"its type is {item.get('type') or 'not given'}, {TYPE} is expected")
        try:
            texts.append(base64.b64decode(data[name], validate=True).decode("ascii"))
        except (binascii.Error, UnicodeDecodeError, ValueError):
            raise ModelError(f"its {name} is no PEM") from None
    return Certificate(*texts)


class Secrets:
    """The certificates that are known, and what is wrong with the others."""

    def __init__(self) -> None:
        self._known: dict[Key, _Known] = {}

    def put(self, item: Json) -> bool:
        """Take a Secret; return whether that changes anything."""
        try:
            fresh = _Known(read_certificate(item))
        except ModelError as error:
            return self.refuse(key_of(item), error.summary)
        return self._set(key_of(item), fresh)

    def refuse(self, key: Key, why: str) -> bool:
        """Note why a Secret cannot be used now; what it held before stays in use."""
        before = self._known.get(key, _Known())
        return self._set(key, _Known(before.certificate, why))

    def keep_only(self, keys: Set[Key]) -> None:
        """Forget the Secrets that nothing names any more."""
        for key in self._known.keys() - keys:
            del self._known[key]

    def answered(self, key: Key) -> bool:
        """Return whether anything was heard of a Secret."""
        return key in self._known

    def get(self, key: Key) -> Certificate | None:
        """Return the certificate to use."""
        return self._known.get(key, _Known()).certificate

    def problem(self, key: Key) -> str | None:
        """Return what is wrong with a Secret, in words for the one who names it."""
        known = self._known.get(key, _Known())
        if known.problem is None:
            return None
        instead = "; the certificate that it had is still in use" if known.certificate else ""
        return f"Secret {key[0]}/{key[1]} cannot be used: {known.problem}{instead}"

    def _set(self, key: Key, fresh: _Known) -> bool:
        changed = self._known.get(key) != fresh
        if changed:
            self._known[key] = fresh
        return changed
