"""Certificates by host: what HAProxy is to have, what it has, and the commands between the two. Pure.

Source: https://docs.haproxy.org/2.6/management.html#9.3 (`show ssl cert`, `set ssl cert`, `add ssl crt-list`), and
https://docs.haproxy.org/2.6/configuration.html#5.1-crt-list for the list.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from coupler.registrator.model import Certificate, ModelError
from coupler.registrator.names import safe_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from coupler.registrator.model import Host

_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----([A-Za-z0-9+/=\s]+)-----END \1-----")
_CERTIFICATES = frozenset(("CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"))
_KEYS = frozenset(("PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"))
_COLUMNS = 64
_NEVER = "!*"  # of the default: its own names lead to it only where they lead nowhere else
_LARGEST_PAYLOAD = 15_000  # bytes; a command and its payload share a buffer of 16,384
_FINGERPRINT, _SUCCESS = "SHA1 FingerPrint: ", "Success!"


@dataclass(frozen=True, slots=True)
class Entry:
    """One certificate in its file, and the names for which it is served."""

    host: str
    path: Path
    certificate: Certificate

    @property
    def names(self) -> str:
        """Return the filter of the list."""
        return self.host or _NEVER

    @property
    def pem(self) -> str:
        """Return what the file holds."""
        return pem(self.certificate)

    @property
    def large(self) -> bool:
        """Whether it takes a reload: the runtime API takes no text of this length."""
        return len(self.pem) + len(str(self.path)) > _LARGEST_PAYLOAD


@dataclass(frozen=True, slots=True)
class Observed:
    """What there is: lines of the process's list by path (None: it has no list), fingerprints, texts of files."""

    listed: Mapping[str, tuple[tuple[int, str], ...]] | None = None
    loaded: Mapping[str, str] = field(default_factory=dict)
    stored: Mapping[str, str] = field(default_factory=dict, repr=False)


@lru_cache(maxsize=2**12)
def pem(certificate: Certificate) -> str:
    """Return chain and key, and nothing else: in the runtime API, an empty line would end them, and a command begin."""
    chain = [_block(kind, body) for kind, body in _BLOCK.findall(certificate.chain) if kind in _CERTIFICATES]
    keys = [_block(kind, body) for kind, body in _BLOCK.findall(certificate.key) if kind in _KEYS]
    return "".join([*chain, *keys[:1]])


def _block(kind: str, body: str) -> str:
    text = "".join(body.split())
    lines = [text[start : start + _COLUMNS] for start in range(0, len(text), _COLUMNS)]
    return "\n".join([f"-----BEGIN {kind}-----", *lines, f"-----END {kind}-----", ""])


@lru_cache(maxsize=2**12)
def fingerprint(certificate: Certificate) -> str:
    """Return the SHA-1 of the server's own certificate, as HAProxy shows it."""
    found = _BLOCK.search(pem(certificate))
    try:
        return hashlib.sha1(base64.b64decode(found[2]), usedforsecurity=False).hexdigest().upper() if found else ""
    except ValueError:
        return ""


def entries(hosts: Iterable[Host], folder: Path) -> dict[str, Entry]:
    """Return the certificates by path, the default first: HAProxy takes the first of its list for it."""
    having = ((host.name, host.certificate) for host in sorted(hosts, key=lambda host: host.name))
    made = (Entry(name, folder / f"{safe_name(name or '(default)')}.pem", own) for name, own in having if own)
    return {str(entry.path): entry for entry in made}


def earlier(entry: Entry, stored: str) -> Entry | None:
    """Return the entry with the certificate that its file has; None where the file has none."""
    try:
        return Entry(entry.host, entry.path, Certificate(stored, stored))
    except ModelError:
        return None


def list_text(wanted: Iterable[Entry]) -> str:
    """Return the file of the list."""
    return "".join(f"{entry.path} {entry.names}\n" for entry in wanted)


def parse_list(text: str) -> dict[str, tuple[tuple[int, str], ...]] | None:
    """Return what an answer to `show ssl crt-list -n` has, by path: line and names. None if there is no such list."""
    if not text.startswith("#"):
        return None
    listed: dict[str, tuple[tuple[int, str], ...]] = {}
    for line in text.splitlines()[1:]:
        place, _, names = line.partition(" ")
        path, _, number = place.rpartition(":")
        if number.isdigit():
            listed[path] = (*listed.get(path, ()), (int(number), names.strip()))
    return listed


def parse_fingerprint(text: str) -> str:
    """Return the fingerprint in an answer to `show ssl cert`."""
    return next((line.removeprefix(_FINGERPRINT) for line in text.splitlines() if line.startswith(_FINGERPRINT)), "")


def outdated(entry: Entry, observed: Observed) -> bool:
    """Whether the process has another certificate, or may have one with another chain: the file is written last."""
    path = str(entry.path)
    return observed.loaded.get(path) != fingerprint(entry.certificate) or observed.stored.get(path) != entry.pem


def listed_well(entry: Entry, observed: Observed) -> bool:
    """Whether the process has it in its list, once, for these names. The default comes and goes by a reload alone."""
    places = (observed.listed or {}).get(str(entry.path), ())
    return not entry.host or [names for _, names in places] == [entry.names]


def loading(entry: Entry, observed: Observed) -> list[str]:
    """Return the commands that load a certificate, or another in its place; the last one commits."""
    new = [] if str(entry.path) in observed.loaded else [f"new ssl cert {entry.path}"]
    return [*new, f"set ssl cert {entry.path} <<\n{entry.pem}", f"commit ssl cert {entry.path}"]


def unloading(entry: Entry, observed: Observed) -> list[str]:
    """Return the commands after which a failed load has left nothing behind."""
    new = [] if str(entry.path) in observed.loaded else [f"del ssl cert {entry.path}"]
    return [f"abort ssl cert {entry.path}", *new]


def succeeded(answer: str) -> bool:
    """Return whether a commit, or an addition to the list, was done."""
    return _SUCCESS in answer


def surplus(wanted: Mapping[str, Entry], observed: Observed, folder: Path) -> list[str]:
    """Return the paths in our folder that are loaded or listed and not wanted."""
    mine = f"{folder}/"
    return sorted(p for p in {*observed.loaded, *(observed.listed or ())} if p.startswith(mine) and p not in wanted)


def delisting(wanted: Mapping[str, Entry], observed: Observed, folder: Path, listing: Path) -> list[str]:
    """Return the commands that take out of the list what is surplus, or there twice, or there for other names."""
    commands = []
    for path, places in (observed.listed or {}).items():
        entry = wanted.get(path)
        keep = next((line for line, names in reversed(places) if entry and names == entry.names), None)
        if entry is None and not path.startswith(f"{folder}/"):
            continue
        commands += [f"del ssl crt-list {listing} {path}:{line}" for line, _ in places if line != keep]
    return commands
