"""Files that cluster.yaml names, read while it is loaded, so that everything after that is pure."""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeAlias, cast

from pydantic import PlainValidator, ValidationInfo, WithJsonSchema

from coupler.errors import Finding, Severity
from coupler.model.fields import line_of, resolve
from coupler.model.images import FOLDER, INDEX, MirroredImage, image_of
from coupler.model.problem import kind_of, problem
from coupler.model.source import KeyPath, Source, SourceError, parse, read_text

SUMS = "SHA256SUMS"
_PEM = re.compile(r"-----BEGIN ([A-Z ]+)-----(.*?)-----END \1-----", re.DOTALL)


@dataclass
class Reading:
    """The context of validation: the folder of cluster.yaml, its source, and findings in other files."""

    folder: Path
    source: Source
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True)
class Certificate:
    """A CA certificate in PEM form; a file may hold several."""

    path: Path
    pem: str


@dataclass(frozen=True)
class MirrorFolder:
    """A mirror's folder and what its SHA256SUMS says, `NAME/VERSION/ARCH/FILE` to checksum, and its index of images."""

    path: Path
    checksums: Mapping[str, str]
    images: tuple[MirroredImage, ...] = ()


@dataclass(frozen=True)
class Extra:
    """The user's own cloud-config fragment: plain dicts, lists and texts, every scalar as it was written."""

    document: Mapping[str, Any]
    source: Source = field(repr=False)
    base: KeyPath = ()

    def finding(self, code: str, severity: Severity, path: KeyPath, message: str, hint: str | None = None) -> Finding:
        """Return a finding about the value at `path` of the fragment."""
        return self.source.finding(code, severity, (*self.base, *path), message, hint)


def _certificate(value: object, info: ValidationInfo) -> Certificate:
    path = resolve(line_of(value), info)
    pem = text_of(path, "PEM certificates")
    blocks = _PEM.findall(pem)
    if any(label.endswith("PRIVATE KEY") for label, _ in blocks):
        raise problem(
            "private-key", f"{path} holds a private key, and the cloud-config is public", "keep only certificates"
        )
    if not blocks or not all(label == "CERTIFICATE" and _is_der(body) for label, body in blocks):
        raise problem(
            "invalid-certificate", f"{path} is no PEM certificate", "it begins with -----BEGIN CERTIFICATE-----"
        )
    return Certificate(path, pem)


def _is_der(body: str) -> bool:
    try:
        return base64.b64decode("".join(body.split()), validate=True)[:1] == b"\x30"
    except binascii.Error:
        return False


def text_of(path: Path, what: str) -> str:
    """Return the text of a file of `what` that cluster.yaml names; one that cannot be read is a problem."""
    try:
        return read_text(path)
    except SourceError as error:
        code = error.findings[0].code
        hint = f"the path is relative to cluster.yaml; it should name a file with {what}"
        raise problem(
            "file-missing" if code == "file-missing" else "file-unreadable", f"{path}: {error}", hint
        ) from None


def _mirror_folder(value: object, info: ValidationInfo) -> MirrorFolder:
    path = resolve(line_of(value), info)
    return MirrorFolder(path, _checksums(path), _images(path))


def _checksums(path: Path) -> dict[str, str]:
    sums = path / SUMS
    if not sums.is_file():
        return {}
    checksums = {}
    for number, line in enumerate(text_of(sums, "checksums").splitlines(), 1):
        entry = entry_of(line)
        if line and not entry:
            message = f"{sums}, line {number}, is not `<sha256>  NAME/VERSION/ARCH/FILE`"
            raise problem("invalid-checksums", message, f"write it anew: cluster mirror verify --index --mirror {path}")
        if entry:
            checksums[entry[0]] = entry[1]
    return checksums


def entry_of(line: str) -> tuple[str, str] | None:
    """Return what a line of a SHA256SUMS says, path and checksum, None where it is no such line (sha256sum(1))."""
    entry = re.fullmatch(r"([0-9a-f]{64}) [ *](?:\./)?(.+)", line)
    return (entry[2], entry[1]) if entry else None


def _images(path: Path) -> tuple[MirroredImage, ...]:
    index = path / FOLDER / INDEX
    if not index.is_file():
        return ()
    images = []
    for number, line in enumerate(text_of(index, "images").splitlines(), 1):
        image = image_of(line)
        if line and not image:
            message = f"{index}, line {number}, is not `<sha256> FILE.tar ARCH IMAGE…`"
            raise problem("invalid-images", message, "delete the line and add the image anew: cluster mirror add-image")
        if image:
            images.append(image)
    return tuple(images)


def _extra(value: object, info: ValidationInfo) -> Extra | None:
    reading = cast("Reading", info.context)
    if isinstance(value, dict):
        return Extra(_texts(value), reading.source, ("extra",))
    if not isinstance(value, str):
        raise problem("wrong-type", f"expected a mapping or the path of a file, found {kind_of(value)}")
    path = resolve(line_of(value), info)
    text = text_of(path, "a #cloud-config fragment")
    try:
        source = parse(text, str(path))
    except SourceError as error:
        reading.findings += error.findings
        return None
    if not isinstance(source.data, dict):
        message = f"expected the keys of a cloud-config, found {kind_of(source.data)}"
        reading.findings.append(source.finding("not-a-mapping", Severity.ERROR, (), message))
        return None
    return Extra(_texts(source.data), source)


def _texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _texts(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_texts(item) for item in value]
    return "" if value is None else str(value)


_PATH = {"type": "string"}
CertificatePath: TypeAlias = Annotated[Certificate, PlainValidator(_certificate), WithJsonSchema(_PATH)]
MirrorFolderPath: TypeAlias = Annotated[MirrorFolder, PlainValidator(_mirror_folder), WithJsonSchema(_PATH)]
Fragment: TypeAlias = Annotated[Extra | None, PlainValidator(_extra), WithJsonSchema({"type": ["string", "object"]})]
