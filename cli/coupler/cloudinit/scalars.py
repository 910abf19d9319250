"""What a YAML scalar means to the two lineages: YAML 1.1 as CoreOS's decoder read it, and Flatcar's mix with 1.2."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coupler.cloudinit.golang import to_bytes, to_text
from coupler.cloudinit.grammar import Lineage
from coupler.cloudinit.yamlport import YamlError

if TYPE_CHECKING:
    from coupler.cloudinit.parse import Node

Scalar = str | int | float | bool | None

_TRUE = frozenset(["y", "Y", "yes", "Yes", "YES", "on", "On", "ON"])
_FALSE = frozenset(["n", "N", "no", "No", "NO", "off", "Off", "OFF"])
_BOOLS: dict[str, Scalar] = dict.fromkeys(("true", "True", "TRUE"), True) | dict.fromkeys(  # type: ignore[assignment]
    ("false", "False", "FALSE"), False
)
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_SPECIAL_FLOATS = {
    sign + spelling: float(sign + "inf") for sign in ("", "+", "-") for spelling in (".inf", ".Inf", ".INF")
} | dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan"))
_RESOLVABLE = frozenset(("", "!!str", "!!bool", "!!int", "!!float", "!!null"))
_INTEGER = re.compile(r"([-+]?)(0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+|0[0-7]*|[1-9][0-9]*)")
_DECIMAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_GO_FLOAT = re.compile(r"[-+]?(inf|infinity)|0[xX][0-9a-fA-F]*\.?[0-9a-fA-F]*[pP][-+]?[0-9]+", re.IGNORECASE)
_TIMESTAMP = re.compile(
    r"(?P<year>\d{4})-(?P<month>\d{1,2})-(?P<day>\d{1,2})"
    r"(?:(?P<separator>[Tt ])(?P<hour>\d{1,2}):(?P<minute>\d{1,2}):(?P<second>\d{1,2})(?P<fraction>\.\d+)?"
    r"(?P<zone>Z|[-+]\d\d:\d\d)?)?"
)
_INT64 = range(-(2**63), 2**63)
_UINT64 = range(2**64)


@dataclass(frozen=True)
class Timestamp:
    """A point in time, which Flatcar's decoder reads from some scalars, as `%s` prints it."""

    text: str


@dataclass(frozen=True)
class Resolved:
    """A scalar's tag in short form (`!!int`) and its value."""

    tag: str
    value: Scalar | Timestamp


def resolve(node: Node, lineage: Lineage) -> Resolved:
    """Return what a scalar node means. Raises YamlError where the tag and the text contradict each other."""
    if node.tag == "!!str" or (not node.tag and not node.plain):
        return Resolved("!!str", node.value)
    if node.tag == "!!binary":
        return Resolved("!!binary", _binary(node.value))
    if lineage is Lineage.FLATCAR and node.plain and not node.tag and node.value == "<<":
        return Resolved("!!merge", "<<")
    if node.tag not in _RESOLVABLE and not (lineage is Lineage.FLATCAR and node.tag == "!!timestamp"):
        return Resolved(node.tag, node.value)
    resolved = _classic(node.value) if lineage is Lineage.COREOS else _flatcar(node.value, node.tag)
    if node.tag in ("", resolved.tag):
        return resolved
    if lineage is Lineage.FLATCAR and node.tag == "!!float" and isinstance(resolved.value, int):
        return Resolved("!!float", float(resolved.value))
    raise YamlError(f"cannot decode {resolved.tag} `{node.value}` as a {node.tag}")


def is_yes_or_no(text: str) -> bool | None:
    """Return the boolean that a YAML 1.1 word such as `yes` or `off` means, None for any other text."""
    if text in _TRUE:
        return True
    return False if text in _FALSE else None


def _binary(text: str) -> str:
    try:
        return to_text(base64.b64decode(re.sub(rb"[\r\n]", b"", to_bytes(text)), validate=True))
    except binascii.Error as error:
        raise YamlError("!!binary value contains invalid base64 data") from error


def _word(text: str) -> Resolved | None:
    if text in _NULLS:
        return Resolved("!!null", None)
    if text in _BOOLS:
        return Resolved("!!bool", _BOOLS[text])
    if text in _SPECIAL_FLOATS:
        return Resolved("!!float", _SPECIAL_FLOATS[text])
    return None


def _classic(text: str) -> Resolved:
    answer = is_yes_or_no(text)
    if answer is not None:
        return Resolved("!!bool", answer)
    if text == "<<":
        return Resolved("!!merge", text)
    if (word := _word(text)) is not None:
        return word
    if text[0] in "0123456789+-.":
        plain = text if text[0] == "." else text.replace("_", "")
        number = None if text[0] == "." else _integer(plain)
        if number is not None and number in _INT64:
            return Resolved("!!int", number)
        if (real := _float(plain, go_spellings=True)) is not None:
            return Resolved("!!float", real)
    return Resolved("!!str", text)


def _flatcar(text: str, tag: str) -> Resolved:
    if (word := _word(text)) is not None:
        return word
    if text[0] == ".":
        real = _float(text, go_spellings=True)
        return Resolved("!!str", text) if real is None else Resolved("!!float", real)
    if text[0] in "0123456789+-":
        if tag in ("", "!!timestamp") and (moment := _timestamp(text)) is not None:
            return Resolved("!!timestamp", moment)
        plain = text.replace("_", "")
        number = _integer(plain)
        if number is not None and (number in _INT64 or (number in _UINT64 and plain[0] != "+")):
            return Resolved("!!int", number)
        if (real := _float(plain, go_spellings=False)) is not None:
            return Resolved("!!float", real)
    return Resolved("!!str", text)


def _integer(text: str) -> int | None:
    """Return an integer in one of Go's spellings: decimal, 0x, 0o, 0b, and a leading 0 for octal."""
    match = _INTEGER.fullmatch(text)
    if match is None:
        return None
    digits = match[2]
    octal = len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()
    return (-1 if match[1] == "-" else 1) * (int(digits, 8) if octal else int(digits, 0))


def _float(text: str, *, go_spellings: bool) -> float | None:
    if go_spellings:
        text = re.sub(r"(?<=\d)_(?=\d)", "", text)
    if _DECIMAL.fullmatch(text):
        value = float(text)
        return None if value in (float("inf"), float("-inf")) else value
    if not go_spellings or not _GO_FLOAT.fullmatch(text):
        return None
    try:
        return float.fromhex(text) if "x" in text.lower() else float(text)
    except (ValueError, OverflowError):
        return None


def _timestamp(text: str) -> Timestamp | None:
    from datetime import UTC, datetime

    match = _TIMESTAMP.fullmatch(text)
    if match is None or bool(match["zone"]) != ((match["separator"] or " ") in "Tt"):
        return None
    numbers = [int(match[name]) for name in ("year", "month", "day")]
    numbers += [int(match[name] or 0) for name in ("hour", "minute", "second")]
    try:
        moment = datetime(*numbers, tzinfo=UTC)  # type: ignore[arg-type,misc]
    except ValueError:
        return None
    fraction = (match["fraction"] or "").rstrip("0").rstrip(".")
    zone = (match["zone"] or "Z").replace(":", "")
    zone = "+0000 UTC" if zone in ("Z", "+0000", "-0000") else f"{zone} {zone}"
    return Timestamp(f"{moment:%Y-%m-%d %H:%M:%S}{fraction} {zone}")
