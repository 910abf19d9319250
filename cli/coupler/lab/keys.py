"""The key pairs of a lab: one for the person, one host key for each machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

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
    public.write_text(line + "\n")
    write_secret(private, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    return line


def write_secret(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(content)
    draft.replace(path)
