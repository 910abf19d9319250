"""The kinds of value that keys of cluster.yaml take.

Every scalar arrives as the text that was written (`source.Scalar`). What ends up in a unit, a shell or an environment
file is one line without control characters, by construction: all texts pass through `line_of`.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import os
import re
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError, ip_address
from pathlib import Path
from typing import Annotated, Any, TypeAlias, cast
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, PlainValidator, ValidationInfo, WithJsonSchema

from coupler.model.images import REFERENCE
from coupler.model.problem import kind_of, problem
from coupler.model.source import Scalar

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*\.?")
VERSION = re.compile(r"\d{1,6}(\.\d{1,6}){2}(-[0-9A-Za-z.]+)?", re.ASCII)
"""A version of three numbers."""

_UNITS = {"s": 1, "m": 60, "h": 3600}
_MOST_PORT = 65535
API_PORT = 6443
"""Where an API server listens."""
TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
"""What a taint does to pods that do not tolerate it (Kubernetes' documentation, 'Taints and Tolerations')."""
_KEY_TYPES = ("ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-")


def value_of(value: object) -> str:
    """Return a scalar's text, which may be empty; anything but one line of text is a problem."""
    if not isinstance(value, str):
        raise problem("wrong-type", f"expected a text, found {kind_of(value)}")
    if bad := _CONTROL.search(value):
        raise problem("control-character", f"the text holds the control character U+{ord(bad[0]):04X}", "use one line")
    return str(value)


def line_of(value: object) -> str:
    """Return a scalar's text; an empty one is a problem."""
    text = value_of(value)
    if not text.strip():
        raise problem("empty-value", "the text is empty", "give a value, or remove the key")
    return text


class Version(str):
    """A version of three numbers, `1.35.1`; compare `numbers`, never the text."""

    __slots__ = ()

    @property
    def numbers(self) -> tuple[int, int, int]:
        """The three numbers, without a suffix such as `-rc.1`."""
        major, minor, patch = self.partition("-")[0].split(".")
        return int(major), int(minor), int(patch)


class Endpoint(str):
    """Where something is reached: a host name or IPv4 address, a colon and a port."""

    __slots__ = ()

    @property
    def host(self) -> str:
        """The host name or address."""
        return self.partition(":")[0]


class Duration(str):
    """A length of time as systemd and Go both write it: `90s`, `5m`, `1h30m`."""

    __slots__ = ()

    @property
    def seconds(self) -> int:
        """The same length in seconds."""
        return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([smh])", self))


def _version(value: object) -> Version:
    text = line_of(value)
    if not VERSION.fullmatch(text):
        bare = text.removeprefix("v")
        hint = f"write `{bare}`" if bare != text else "write all three numbers: `MAJOR.MINOR.PATCH`"
        raise problem("invalid-version", f"`{text}` is not a version of three numbers", hint)
    return Version(text)


def _duration(value: object) -> Duration:
    text = line_of(value)
    if not re.fullmatch(r"(\d{1,6}[smh]){1,3}", text):
        hint = f"write `{text}s` for seconds" if text.isdigit() else "write `90s`, `5m` or `1h30m`"
        raise problem("invalid-duration", f"`{text}` is not a length of time", hint)
    return Duration(text)


def count_of(value: object) -> int:
    """Return a whole number that was written in decimal digits."""
    text = line_of(value)
    if not re.fullmatch(r"0|[1-9][0-9]{0,9}", text):
        raise problem("wrong-type", f"expected a whole number, found `{text}`", "write decimal digits only")
    return int(text)


def _flag(value: object) -> bool:
    text = line_of(value)
    if text not in {"true", "false"}:
        meant = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(text.lower(), text.lower())
        hint = f"write `{meant}`" if meant in {"true", "false"} else None
        raise problem("wrong-type", f"expected `true` or `false`, found `{text}`", hint)
    return text == "true"


def name_of(value: object) -> str:
    """Return a DNS label (RFC 1123, 2.1), in lower case as systemd and Kubernetes want it."""
    text = line_of(value)
    if not _LABEL.fullmatch(text):
        better = re.sub(r"[^a-z0-9-]+", "-", text.lower()).strip("-")[:63]
        hint = f"did you mean `{better}`?" if _LABEL.fullmatch(better) else None
        message = f"`{text}` is not a DNS label (a-z, 0-9 and hyphens inside, at most 63)"
        raise problem("invalid-name", message, hint)
    return text


def _host(value: object) -> str:
    text = line_of(value)
    if not _HOST.fullmatch(text) or len(text) > 253:  # noqa: PLR2004 (RFC 1035, 2.3.4)
        raise problem("invalid-host", f"`{text}` is neither a host name nor an IPv4 address")
    return text


def _endpoint(value: object) -> Endpoint:
    host, colon, port = line_of(value).partition(":")
    if colon and not (port.isdigit() and 1 <= int(port) <= _MOST_PORT):
        raise problem(
            "invalid-port", f"`{port}` is not a port", f"write `{host}:6443`, or the host alone for port 6443"
        )
    return Endpoint(f"{_host(host)}:{port or API_PORT}")


def address_of(value: object) -> IPv4Address:
    """Return the IPv4 address that a machine may have."""
    text = line_of(value)
    try:
        address = IPv4Address(text)
    except AddressValueError:
        raise problem(
            "invalid-address", f"`{text}` is not an IPv4 address", "write four numbers: `10.0.0.11`"
        ) from None
    if address.is_loopback or address.is_multicast or address.is_link_local or address.is_unspecified:
        raise problem("unusable-address", f"{address} cannot be the address of a node in a network")
    return address


def _network(value: object) -> IPv4Network:
    text = line_of(value)
    if "/" not in text:
        raise problem("invalid-network", f"`{text}` has no prefix length", f"write `{text}/16`, for example")
    try:
        loose = IPv4Network(text, strict=False)
    except (AddressValueError, NetmaskValueError):
        raise problem("invalid-network", f"`{text}` is not an IPv4 network", "write `10.244.0.0/16`") from None
    if str(loose) != text:
        message = f"{text} has host bits set" if text.endswith(f"/{loose.prefixlen}") else f"`{text}` is no short form"
        raise problem("host-bits-set", message, f"did you mean {loose}?")
    return loose


def _mac(value: object) -> str:
    text = line_of(value).lower().replace("-", ":")
    if not re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", text):
        raise problem("invalid-mac", f"`{text}` is not a MAC address", "write `52:54:00:12:34:56`")
    if int(text[:2], 16) & 1:
        raise problem("invalid-mac", f"{text} is a multicast address, which no network card has")
    return text


def _url(value: object, schemes: tuple[str, ...]) -> str:
    text = line_of(value)
    parts = urlsplit(text)
    if parts.scheme not in schemes or not parts.hostname or re.search(r"\s", text):
        hint = f"begin with {' or '.join(scheme + '://' for scheme in schemes)}"
        if "ssh" in schemes and (scp := re.fullmatch(r"([\w.-]+@)?([\w.-]+):(?!//)/?(.+)", text)):
            hint = f"write `ssh://{scp[1] or ''}{scp[2]}/{scp[3]}`"
        raise problem("invalid-url", f"`{text}` is not a URL that works here", hint)
    if parts.password is not None:
        message = "the URL holds a password, and every node and everyone who reads the git repository would see it"
        raise problem("secret-in-url", message, "remove it; give the host a key or open read access to it")
    return text


def _web_url(value: object) -> str:
    return _url(value, ("https", "http"))


def _git_url(value: object) -> str:
    return _url(value, ("git", "ssh", "https", "http"))


def _path(value: object, info: ValidationInfo) -> Path:
    return resolve(line_of(value), info)


def resolve(text: str, info: ValidationInfo) -> Path:
    """Return the path `text` of cluster.yaml: `~` expanded, and relative to the folder of the file."""
    folder: Path = cast("Any", info.context).folder
    return Path(os.path.normpath(folder / Path(text).expanduser()))


def _push(value: object, info: ValidationInfo) -> str:
    text = line_of(value)
    return _git_url(text) if "://" in text else str(resolve(text, info))


def key_of(words: list[str]) -> str | None:
    """Return `TYPE BASE64` of the public key among the words of a line, or None (RFC 4253, 6.6)."""
    for kind, blob in itertools.pairwise(words):
        if not kind.startswith(_KEY_TYPES):
            continue
        try:
            raw = base64.b64decode(blob, validate=True)
        except binascii.Error:
            return None
        length = int.from_bytes(raw[:4], "big")
        return f"{kind} {blob}" if raw[4 : 4 + length] == kind.encode() else None
    return None


def _bind(value: object) -> str:
    text = line_of(value)
    address, _, port = text.rpartition(":")
    if not (port.isdigit() and 1 <= int(port) <= _MOST_PORT and (address == "*" or _is_address(address))):
        raise problem("invalid-bind", f"`{text}` is not ADDRESS:PORT", 'write `"*:80"`, `10.0.0.11:80` or `"[::]:80"`')
    return text


def _is_address(text: str) -> bool:
    try:
        ip_address(text.removeprefix("[").removesuffix("]") if text.startswith("[") else text)
    except ValueError:
        return False
    return text.startswith("[") == (":" in text)


def _public_key(value: object) -> str:
    if isinstance(value, str) and "PRIVATE KEY" in value:
        raise problem(
            "private-key", "this is a private key; it must never leave your machine", "give the `.pub` file's"
        )
    text = line_of(value)
    if key_of(text.split()) is None:
        message = "this is not an OpenSSH public key (`ssh-ed25519 AAAA… comment`), or part of it is missing"
        raise problem("invalid-public-key", message, "copy the whole line of the `.pub` file")
    return text


def _signer(value: object) -> str:
    text = _public_key(value)
    if text.startswith(_KEY_TYPES):
        raise problem(
            "invalid-signer", "the line names no signer", f"write `you@example.org {' '.join(text.split()[:2])}`"
        )
    return text


def _sha256(value: object) -> str:
    text = line_of(value).lower().removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise problem("invalid-sha256", f"`{text}` is not a SHA-256 sum (64 hexadecimal digits)")
    return text


def _image(value: object) -> str:
    text = line_of(value)
    if not REFERENCE.fullmatch(text):
        raise problem(
            "invalid-image", f"`{text}` is not the name of an image", "write `registry.example.org/pause:3.10`"
        )
    return text


def _option(value: object) -> str:
    text = line_of(value)
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", text):
        better = text.lstrip("-").partition("=")[0].replace("_", "-")
        raise problem("invalid-option", f"`{text}` is not the name of an option", f"write `{better}: value`")
    return text


def _label_key(value: object) -> str:
    text = line_of(value)
    if not re.fullmatch(
        r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?", text, re.ASCII
    ):
        raise problem(
            "invalid-label", f"`{text}` is not the key of a label (letters, digits, `-`, `_`, `.`; at most 63)"
        )
    return text


def _label_value(value: object) -> str:
    text = value_of(value)
    if not re.fullmatch(r"([A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?)?", text, re.ASCII):
        raise problem("invalid-label", f"`{text}` is not a label (letters, digits, `-`, `_`, `.`; at most 63)")
    return text


def _taint(value: object) -> str:
    text = line_of(value)
    rest, colon, effect = text.rpartition(":")
    if not colon or effect not in TAINT_EFFECTS:
        meant = next((kind for kind in TAINT_EFFECTS if kind.lower() == effect.lower()), TAINT_EFFECTS[0])
        hint = f"write `{rest or text}:{meant}`" if not colon or meant.lower() == effect.lower() else None
        message = f"`{text}` is not a taint: KEY=VALUE:EFFECT, with an effect of {', '.join(TAINT_EFFECTS)}"
        raise problem("invalid-taint", message, hint)
    key, equals, label = rest.partition("=")
    return f"{_label_key(key)}{equals}{_label_value(label)}:{effect}"


def _quantity(value: object) -> str:
    text = line_of(value)
    if not re.fullmatch(r"(0|[1-9][0-9]{0,11})(\.[0-9]{1,3})?(m|[kMGT]|[KMGT]i)?", text):
        message = f"`{text}` is not a quantity of a resource"
        raise problem("invalid-quantity", message, "write `250m` for a quarter of a CPU, `512Mi` for memory")
    return text


def _threshold(value: object) -> str:
    text = line_of(value)
    return text if re.fullmatch(r"(0|[1-9][0-9]?)(\.[0-9]{1,3})?%", text) else _quantity(text)


def _no_proxy(value: object) -> str:
    text = line_of(value)
    if re.search(r"[\s,]", text):
        raise problem("invalid-host", f"`{text}` is more than one host", "write one list item for each")
    return text


def plain_data(value: Any) -> Any:
    """Return data as YAML 1.2's core schema reads it: unquoted true, false, null and numbers are no texts."""
    if isinstance(value, dict):
        return {str(key): plain_data(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain_data(item) for item in value]
    if isinstance(value, Scalar) and value.plain:
        if value in {"true", "false"}:
            return value == "true"
        if re.fullmatch(r"-?(0|[1-9][0-9]*)", value):
            return int(value)
        if re.fullmatch(r"-?(0|[1-9][0-9]*)\.[0-9]+", value):
            return float(value)
    return str(value) if isinstance(value, str) else value


def _json_object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise problem("wrong-type", f"expected a mapping, found {kind_of(value)}")
    result: dict[str, Any] = plain_data(value)
    return result


_SCALAR = {"type": ["string", "number", "boolean"]}

Text: TypeAlias = Annotated[str, BeforeValidator(line_of)]
Value: TypeAlias = Annotated[str, BeforeValidator(value_of), WithJsonSchema(_SCALAR)]
Flag: TypeAlias = Annotated[bool, BeforeValidator(_flag)]
Port: TypeAlias = Annotated[int, Field(ge=1, le=65535), BeforeValidator(count_of)]
Name: TypeAlias = Annotated[str, BeforeValidator(name_of), WithJsonSchema({"type": "string", "maxLength": 63})]
Host: TypeAlias = Annotated[str, BeforeValidator(_host)]
Network: TypeAlias = Annotated[
    IPv4Network, BeforeValidator(_network), WithJsonSchema({"type": "string", "pattern": r"^[0-9.]+/[0-9]+$"})
]
Address: TypeAlias = Annotated[
    IPv4Address, BeforeValidator(address_of), WithJsonSchema({"type": "string", "pattern": r"^[0-9.]+$"})
]
Mac: TypeAlias = Annotated[str, BeforeValidator(_mac)]
WebUrl: TypeAlias = Annotated[str, BeforeValidator(_web_url)]
GitUrl: TypeAlias = Annotated[str, BeforeValidator(_git_url)]
PushTarget: TypeAlias = Annotated[str, BeforeValidator(_push)]
FilePath: TypeAlias = Annotated[Path, BeforeValidator(_path), WithJsonSchema({"type": "string"})]
Bind: TypeAlias = Annotated[str, BeforeValidator(_bind)]
PublicKey: TypeAlias = Annotated[str, BeforeValidator(_public_key)]
Signer: TypeAlias = Annotated[str, BeforeValidator(_signer)]
Sha256: TypeAlias = Annotated[str, BeforeValidator(_sha256)]
ImageReference: TypeAlias = Annotated[str, BeforeValidator(_image)]
Option: TypeAlias = Annotated[str, BeforeValidator(_option)]
LabelKey: TypeAlias = Annotated[str, BeforeValidator(_label_key)]
LabelValue: TypeAlias = Annotated[str, BeforeValidator(_label_value), WithJsonSchema(_SCALAR)]
Quantity: TypeAlias = Annotated[str, BeforeValidator(_quantity), WithJsonSchema(_SCALAR)]
Threshold: TypeAlias = Annotated[str, BeforeValidator(_threshold), WithJsonSchema(_SCALAR)]
Taint: TypeAlias = Annotated[str, BeforeValidator(_taint)]
NoProxy: TypeAlias = Annotated[str, BeforeValidator(_no_proxy)]
JsonObject: TypeAlias = Annotated[dict[str, Any], BeforeValidator(_json_object)]
VersionText: TypeAlias = Annotated[
    Version,
    PlainValidator(_version),
    WithJsonSchema({"type": "string", "pattern": r"^\d+\.\d+\.\d+(-[0-9A-Za-z.]+)?$"}),
]
EndpointText: TypeAlias = Annotated[Endpoint, PlainValidator(_endpoint), WithJsonSchema({"type": "string"})]
DurationText: TypeAlias = Annotated[
    Duration, PlainValidator(_duration), WithJsonSchema({"type": "string", "pattern": r"^(\d+[smh]){1,3}$"})
]
