"""Key pairs as vulcand seals them: by a secretbox of NaCl (XSalsa20 with Poly1305), whose key it has as `-sealKey`.

What is sealed is the JSON `{"Key": …, "Cert": …}` with both PEM texts in base64. Around it comes
`{"Encryption": "secretbox.v1", "Value": {"Val": …, "Nonce": …}}`, again with base64, and the base64 of that whole text
is what `Settings.KeyPair` of a host holds: all of it is how Go writes a `[]byte`. Source: vulcand's
`secret/secret.go`, `secret/json.go`, `engine/etcdng/*/etcd.go`.
"""

from __future__ import annotations

import base64
import binascii
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from coupler.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

_SCHEME = "secretbox.v1"
_OTHERS = stat.S_IRWXO | stat.S_IWGRP
_HOW = (
    "make one with `vctl secret new_key`, give it to every vulcand as -sealKey, and keep it in a file "
    "that its owner alone may read"
)


@dataclass(frozen=True, slots=True)
class Pair:
    """A chain, the server's own certificate first, and its key, in PEM."""

    chain: bytes
    key: bytes = field(repr=False)


class Sealer:
    """Seals and opens key pairs. A nonce is random: never one for two texts, and none tells whether texts are equal."""

    def __init__(self, key: bytes) -> None:
        self._box = SecretBox(key)

    def seal(self, pair: Pair) -> str:
        """Return what `Settings.KeyPair` is to hold: another text each time."""
        text = orjson.dumps({"Key": _encoded(pair.key), "Cert": _encoded(pair.chain)})
        sealed = self._box.encrypt(text)
        value = {"Val": _encoded(sealed.ciphertext), "Nonce": _encoded(sealed.nonce)}
        return _encoded(orjson.dumps({"Encryption": _SCHEME, "Value": value}))

    def open(self, sealed: object) -> Pair | None:
        """Return the key pair in what `Settings.KeyPair` holds; None if it is none that our key opens."""
        try:
            outer = orjson.loads(_decoded(sealed))
            if outer["Encryption"] != _SCHEME:
                return None
            inner = orjson.loads(self._box.decrypt(_decoded(outer["Value"]["Val"]), _decoded(outer["Value"]["Nonce"])))
            return Pair(_decoded(inner["Cert"]), _decoded(inner["Key"]))
        except (CryptoError, ValueError, TypeError, LookupError):
            return None


def read_key(path: Path) -> bytes:
    """Return the seal key in a file. Raises ConfigurationError where it is none, or others could read or change it."""
    try:
        mode, text = path.stat().st_mode, path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigurationError(f"the seal key in {path} cannot be read", why, _HOW) from error
    if mode & _OTHERS:
        why = f"its mode is {stat.S_IMODE(mode):04o}: with it, whoever reads etcd has the private keys"
        raise ConfigurationError(f"the seal key in {path} is open to others", why, f"chmod 0600 {path}")
    try:
        key = binascii.unhexlify(text)
    except ValueError:
        key = b""
    if len(key) != SecretBox.KEY_SIZE:
        why = f"a key is {2 * SecretBox.KEY_SIZE} hexadecimal digits, and nothing else"
        raise ConfigurationError(f"{path} holds no seal key", why, _HOW)
    return key


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decoded(text: Any) -> bytes:
    if not isinstance(text, str):
        raise TypeError
    return base64.b64decode(text)
