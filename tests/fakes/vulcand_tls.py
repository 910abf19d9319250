"""The certificates of a fake vulcand: which it has from hosts, and which a client is shown.

They are chosen as Go's `tls.Config` does: by the names in them, not by the names of hosts.
"""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
from dataclasses import dataclass, field

from cryptography import x509
from nacl.bindings import crypto_secretbox_open
from nacl.exceptions import CryptoError


def open_pair(sealed: object, key: bytes | None) -> tuple[bytes, bytes]:
    """Return chain and key of `Settings.KeyPair`. Raises ValueError where a real one does not open it."""
    if key is None:
        raise ValueError("need secretbox to open sealed data")
    if not isinstance(sealed, str):
        raise ValueError("cannot unmarshal object into a field of type []uint8")  # noqa: TRY004 -- of the whole document
    outer = json.loads(base64.b64decode(sealed, validate=True))
    if outer.get("Encryption") != "secretbox.v1":
        raise ValueError(f"unsupported encryption type: {outer.get('Encryption')!r}")
    parts = outer.get("Value", {})
    value, nonce = (base64.b64decode(parts.get(name, ""), validate=True) for name in ("Val", "Nonce"))
    try:
        inner = json.loads(crypto_secretbox_open(value, nonce, key))
    except CryptoError:
        raise ValueError("unable to decrypt message") from None
    return base64.b64decode(inner["Cert"], validate=True), base64.b64decode(inner["Key"], validate=True)


@dataclass(frozen=True)
class Shown:
    """A certificate that can be shown."""

    names: frozenset[str]
    common: str
    context: ssl.SSLContext = field(compare=False)


@dataclass
class Certificates:
    """Hosts by name, and what the listeners make of them: the former, where they cannot make anything of the new."""

    hosts: dict[str, tuple[tuple[bytes, bytes] | None, bool]] = field(default_factory=dict)
    table: list[Shown] = field(default_factory=list)
    first: str | None = None

    def put(self, host: str, pair: tuple[bytes, bytes] | None, *, default: bool) -> None:
        self.hosts[host] = pair, default
        self._reload()

    def delete(self, host: str) -> None:
        self.hosts.pop(host, None)
        self._reload()

    def _reload(self) -> None:
        """Read all hosts anew. Raises ValueError where the default has no certificate."""
        made = {name: _read(*pair) for name, (pair, _) in self.hosts.items() if pair}
        readable = {name: shown for name, shown in made.items() if shown}
        default = next((name for name, (_, default) in self.hosts.items() if default), None)
        if default is not None and default not in readable:
            raise ValueError(f"default host '{default}' certificate is not passed")
        self.table = [*([readable.pop(default)] if default else []), *readable.values()]
        self.first = default

    def shown(self, name: str | None) -> tuple[Shown, ...]:
        """Return what may be shown: the order of those that are not the default is left to chance."""
        wild = f"*.{name.partition('.')[2]}" if name else None
        for candidate in (name, wild):
            found = tuple(shown for shown in self.table if candidate in shown.names)
            if found:
                return found
        return tuple(self.table[:1] if self.first else self.table)


def _read(chain: bytes, key: bytes) -> Shown | None:
    try:
        certificate = x509.load_pem_x509_certificate(chain)
        with tempfile.NamedTemporaryFile() as file:
            file.write(chain + key)
            file.flush()
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(file.name)
    except (ValueError, ssl.SSLError):
        return None
    common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    try:
        listed = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = frozenset(listed.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        names = frozenset()
    named = str(common[0].value) if common else ""
    return Shown(names or frozenset((named,)), named, context)
