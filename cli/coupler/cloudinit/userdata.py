"""What kind of user-data a text is, and its parts where it is a multipart message."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from coupler.cloudinit.golang import DecodeError, decode_base64, gunzip, to_bytes, to_text, trim_right
from coupler.cloudinit.grammar import Lineage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import Message

_GZIP_TYPES = frozenset(
    f"application/{name}"
    for name in ("gzip", "gzip-compressed", "gzipped", "x-compress", "x-compressed", "x-gunzip", "x-gzip")
) | {"application/x-gzip-compressed"}


class Format(StrEnum):
    """Formats of user-data; the values are the words of the real program's log."""

    EMPTY = "empty"
    SCRIPT = "script"
    CLOUD_CONFIG = "cloud-config"
    IGNITION = "ignition"
    MULTIPART = "multipart"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Part:
    """One part of user-data: its format, file name, and text before substitution."""

    format: Format
    name: str
    text: str


class PartsError(Exception):
    """A multipart message that cannot be taken apart; the text is the real program's."""


def decompress(data: bytes) -> tuple[bytes, str | None]:
    """Return user-data without its gzip, if it has one, and the problem where it breaks off."""
    if not data.startswith(b"\x1f\x8b"):
        return data, None
    plain, problem = gunzip(data)
    return plain or b"", problem


def format_of(text: str, lineage: Lineage) -> Format:
    """Return the format of user-data, as the lineage tells them apart; only Flatcar's knows multipart messages."""
    first = text.partition("\n")[0]
    if not text:
        return Format.EMPTY
    if first.startswith("#!"):
        return Format.SCRIPT
    if trim_right(first) == "#cloud-config":
        return Format.CLOUD_CONFIG
    if _is_ignition(text):
        return Format.IGNITION
    if lineage is Lineage.FLATCAR and "multipart/mixed" in _headers(text).get("content-type", ""):
        return Format.MULTIPART
    return Format.UNKNOWN


def parts_of(text: str) -> Iterator[Part]:
    """Yield the parts of user-data in order, one for anything but a multipart message. Raises PartsError."""
    names = {
        Format.SCRIPT: "userdata.sh",
        Format.CLOUD_CONFIG: "cloud-config.yaml",
        Format.IGNITION: "ignition.json",
        Format.UNKNOWN: "userdata.txt",
    }
    kind = format_of(text, Lineage.FLATCAR)
    if kind is Format.MULTIPART:
        try:
            yield from _multipart(text)
        except PartsError as error:
            raise PartsError(f"error parsing multipart MIME: {error}") from error
    else:
        yield Part(Format.UNKNOWN if kind is Format.EMPTY else kind, names.get(kind, "userdata.txt"), text)


def _is_ignition(text: str) -> bool:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        return False
    if not isinstance(config, dict):
        return False
    old, section = _member(config, "ignitionVersion"), _member(config, "ignition")
    new = _member(section, "version") if isinstance(section, dict) else None
    return type(old) is int or (old is None and isinstance(new, str))


def _member(config: dict[str, object], name: str) -> object:
    """Return a member of a JSON object as Go finds it: by its name in any case, the last one counts."""
    return next((value for key, value in reversed(config.items()) if key.lower() == name.lower()), None)


def _headers(text: str) -> dict[str, str]:
    """Return the header fields before the first empty line, names in lower case; none if it is no header."""
    fields: dict[str, str] = {}
    name = ""
    for line in (line.removesuffix("\r") for line in text.split("\n")[:-1]):
        if not line:
            return fields
        if line[0] in " \t":
            if not name:
                return {}
            fields[name] += " " + line.strip()
            continue
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or not re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9a-z ]+", name):
            return {}
        fields.setdefault(name, value.strip())
    return {}


def _multipart(text: str) -> Iterator[Part]:
    from email import message_from_bytes

    message = message_from_bytes(to_bytes(text))
    if message.get_content_type() != "multipart/mixed":
        raise PartsError(f"expected multipart/mixed, got {message.get_content_type()}")
    if message.get_boundary() is None:
        raise PartsError("no boundary found in Content-Type header")
    parts = message.get_payload()
    if not isinstance(parts, list) or any(
        type(defect).__name__.startswith("CloseBoundary") for defect in message.defects
    ):
        raise PartsError("error reading part: multipart: NextPart: EOF")
    for part in parts:
        if isinstance(part, str) or "Content-Type" not in part:
            raise PartsError("error parsing part header: no Content-Type header found")
        yield from _part(part.get_content_type(), part.get_filename() or "", _body(part))


def _body(part: Message) -> bytes:
    coding = part.get("Content-Transfer-Encoding", "")
    if coding.lower() == "quoted-printable":
        return bytes(part.get_payload(decode=True))
    body = str(part.get_payload())
    if coding != "base64":
        return to_bytes(body)
    try:
        return decode_base64(body)
    except DecodeError as error:
        raise PartsError(f"error decoding base64: {error}") from error


def _part(content_type: str, name: str, body: bytes) -> Iterator[Part]:
    if content_type == "text/cloud-config":
        yield Part(Format.CLOUD_CONFIG, name, to_text(body))
    elif content_type == "text/x-shellscript":
        yield Part(Format.SCRIPT, name, to_text(body))
    else:
        if content_type in _GZIP_TYPES:
            plain, problem = gunzip(body)
            if problem is not None:
                raise PartsError(f"error reading gzip: {problem}")
            body = plain or b""
        try:
            yield from parts_of(to_text(body))
        except PartsError as error:
            raise PartsError(f"error parsing part: {error}") from error


__all__ = ["Format", "Part", "PartsError", "decompress", "format_of", "parts_of"]
