"""The key pairs of a lab: one for the person, one host key for each machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from coupler.files import write_whole

if TYPE_CHECKING:
    from pathlib import Path


def ensure_key_pair(private: Path, comment: str) -> str:
    """Return the public half, in OpenSSH's one-line form, of the Ed25519 key `private`; make the pair where it lacks.

    The private half is written last: where it stands, `private` with the suffix `.pub` stands too.
    """
    public = private.with_name(private.name + ".pub")
    if private.exists():
        return public.read_text().strip()
    key = Ed25519PrivateKey.generate()
    line = f"{key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()} {comment}"
    write_whole(public, line + "\n")
    write_whole(private, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()), 0o600)
    return line
