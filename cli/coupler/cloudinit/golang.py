"""What Go's standard library does and Python's does differently: quoting, number text, paths, base64 and gzip.

The real programs are written in Go, and their verdicts, messages and files show it. Text is `str` in which a byte
that is no UTF-8 is kept as a lone surrogate (PEP 383), so that every document survives byte for byte.
"""

from __future__ import annotations

import base64
import math
import re
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_ESCAPES = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    '"': '\\"',
    "\\": "\\\\",
}
_SPACE = " \t\n\v\f\r\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
_GZIP_HEADER_SIZE = 10
_ESCAPED_BYTES = range(0xDC80, 0xDD00)
_ASTRAL = 0x10000
_SMALL_EXPONENT, _LARGE_EXPONENT = -4, 6


class DecodeError(ValueError):
    """Content that its encoding cannot be; the text is the real program's."""


def to_text(data: bytes) -> str:
    """Return bytes as text that `to_bytes` turns back into the same bytes."""
    return data.decode("utf-8", "surrogateescape")


def to_bytes(text: str) -> bytes:
    """Return the bytes of a text; the reverse of `to_text`."""
    return text.encode("utf-8", "surrogateescape")


def quote(text: str) -> str:
    """Return `text` as `%q` prints it."""
    return '"' + "".join(map(_quoted, text)) + '"'


def _quoted(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    if code in _ESCAPED_BYTES:
        return f"\\x{code - _ESCAPED_BYTES.start + 0x80:02x}"
    if _is_control(character):
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < _ASTRAL else f"\\U{code:08x}"


def trim_right(text: str) -> str:
    """Return `text` without the white space at its end, as Unicode defines white space."""
    return text.rstrip(_SPACE)


def trim(text: str) -> str:
    """Return `text` without the white space at both ends, as Unicode defines white space."""
    return text.strip(_SPACE)


def _is_control(character: str) -> bool:
    return character < " " or character == "\x7f"


def format_value(value: object) -> str:
    """Return a scalar as `%v` prints it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return format_float(value)
    return str(value)


def format_float(value: float) -> str:
    """Return a float64 as `%v` prints it: the shortest digits, an exponent below 1e-4 and from 1e6 on."""
    if math.isnan(value) or value in (float("inf"), float("-inf")):
        return {"inf": "+Inf", "-inf": "-Inf"}.get(str(value), "NaN")
    sign = "-" if str(value).startswith("-") else ""
    mantissa, _, exponent_text = f"{abs(value)!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent_text or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0") or "0"
    if digits == "0":
        return f"{sign}0"
    exponent = point - 1
    if exponent < _SMALL_EXPONENT or exponent >= _LARGE_EXPONENT:
        tail = f".{digits[1:]}" if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{tail}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    if point >= len(digits):
        return sign + digits.ljust(point, "0")
    return f"{sign}{digits[:point]}.{digits[point:]}"


def clean_path(path: str) -> str:
    """Return the shortest equivalent of `path`, by text alone (`path.Clean`)."""
    rooted = path.startswith("/")
    parts: list[str] = []
    for part in path.split("/"):
        if part in ("", "."):
            continue
        if part != "..":
            parts.append(part)
        elif parts and parts[-1] != "..":
            parts.pop()
        elif not rooted:
            parts.append(part)
    return ("/" if rooted else "") + "/".join(parts) or "."


def join_path(*elements: str) -> str:
    """Return the elements joined by a slash and cleaned (`path.Join`)."""
    return clean_path("/".join(filter(None, elements))) if any(elements) else ""


def directory_of(path: str) -> str:
    """Return everything before the last slash, cleaned (`path.Dir`)."""
    return clean_path(path[: path.rfind("/") + 1])


def expand(template: str, group: Callable[[str], str]) -> str:
    """Return a replacement text of Go's `regexp` with its `$name`, `${name}` and `$$` filled in by `group`."""
    return re.sub(
        r"\$(?:(\$)|([0-9A-Za-z_]+)|\{([0-9A-Za-z_]+)\})",
        lambda match: "$" if match[1] else group(match[2] or match[3]),
        template,
    )


def decode_content(content: str, encoding: str) -> str:
    """Return the content of a file entry decoded from its `encoding`.

    Raises DecodeError with the real programs' message for an unknown encoding, bad base64, or no gzip header. Gzip
    data that breaks off or is corrupt after its header gives what could be read, without an error.
    """
    if encoding == "":
        return content
    if encoding in ("b64", "base64"):
        return to_text(decode_base64(content))
    if encoding in ("gz", "gzip"):
        return to_text(_gunzip_content(to_bytes(content)))
    if encoding in ("gz+base64", "gzip+base64", "gz+b64", "gzip+b64"):
        return to_text(_gunzip_content(decode_base64(content)))
    raise DecodeError(f"Unsupported encoding {quote(encoding)}")


def decode_base64(content: str) -> bytes:
    """Return standard base64 decoded. Line ends are ignored, anything else out of place raises DecodeError."""
    data = to_bytes(content)
    position = _bad_base64(data)
    if position is not None:
        message = f"illegal base64 data at input byte {position}"
        raise DecodeError(f"Unable to decode base64: {quote(message)}")
    return base64.b64decode(data)


def _bad_base64(data: bytes) -> int | None:
    """Return where the data stops being base64, as Go counts it, or None."""
    characters = [(index, chr(byte)) for index, byte in enumerate(data) if byte not in b"\r\n"]
    text = "".join(character for _, character in characters)
    good = len(text) - len(text.lstrip("".join(_BASE64)))
    rest = text[good:]
    if not rest:
        return None if good % 4 == 0 else len(data) - good % 4
    if rest[0] != "=" or good % 4 < 2:  # noqa: PLR2004 - padding stands in the third and fourth place only
        return characters[good][0]
    padding = 4 - good % 4
    if rest == "=" and padding > 1:
        return len(data)
    if padding > 1 and rest[1] != "=":
        return characters[good + 1][0] - 1
    return None if len(rest) == padding else characters[good + padding][0]


def _gunzip_content(data: bytes) -> bytes:
    plain, problem = gunzip(data)
    if plain is None:
        raise DecodeError(f"Unable to decode gzip: {quote(problem or '')}")
    return plain


def gunzip(data: bytes) -> tuple[bytes | None, str | None]:
    """Return (plain bytes, problem). Bytes are None if there is no gzip header; a problem later keeps what was read."""
    if len(data) < _GZIP_HEADER_SIZE:
        return None, "unexpected EOF" if data else "EOF"
    if data[:3] != b"\x1f\x8b\x08":
        return None, "gzip: invalid header"
    plain = b""
    while data:
        inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            plain += inflater.decompress(data)
        except zlib.error as error:
            return plain + _inflate_up_to_fault(data), _gzip_problem(str(error))
        if not inflater.eof:
            return plain, "unexpected EOF"
        data = inflater.unused_data
    return plain, None


def _inflate_up_to_fault(data: bytes) -> bytes:
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
    plain = b""
    try:
        for index in range(len(data)):
            plain += inflater.decompress(data[index : index + 1])
    except zlib.error:
        pass
    return plain


def _gzip_problem(message: str) -> str:
    if "incorrect data check" in message or "incorrect length check" in message:
        return "gzip: invalid checksum"
    if "header" in message:
        return "gzip: invalid header"
    return "flate: corrupt input"


def is_request_uri(text: str) -> bool:
    """Return whether `url.ParseRequestURI` takes the text: an absolute URL or an absolute path."""
    if text == "*":
        return True
    if not text or any(map(_is_control, text)):
        return False
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", text)
    rest = text[scheme.end() :] if scheme else text
    rest = rest.partition("?")[0]
    if not rest.startswith("/"):
        return scheme is not None
    if re.search(r"%(?![0-9A-Fa-f]{2})", rest):
        return False
    return not (scheme and rest.startswith("//")) or _is_authority(rest[2:].partition("/")[0])


def _is_authority(authority: str) -> bool:
    userinfo, _, host = authority.rpartition("@")
    if not re.fullmatch(r"[A-Za-z0-9\-._:~!$&'()*+,;=%@]*", userinfo):
        return False
    if host.startswith("["):
        return re.fullmatch(r"\[[^]\[ ]*\](:[0-9]*)?", host) is not None
    name, colon, port = host.rpartition(":")
    if colon and not re.fullmatch(r"[0-9]*", port):
        return False
    return re.fullmatch(r"[A-Za-z0-9\-._~!$&'()*+,;=:\[\]<>\"\x80-\U0010ffff]*", name if colon else host) is not None
