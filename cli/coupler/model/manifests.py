"""Manifests of Kubernetes: what objects a text describes, and the texts that cluster.yaml names.

A manifest reaches the nodes as it was written. It is read here only to know its objects by name: those are what is
removed once no manifest has them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeAlias

import yaml
from pydantic import PlainValidator, ValidationInfo, WithJsonSchema

from coupler.model.fields import line_of, plain_data, resolve
from coupler.model.files import text_of
from coupler.model.problem import kind_of, problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_VERSION = re.compile(r"([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?v[a-z0-9]+")
_KIND = re.compile(r"[A-Z][A-Za-z0-9]*")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:_-]*[A-Za-z0-9])?")
_INDENT = 2


class ObjectId(NamedTuple):
    """What an object is known by. An object of no namespace has that of kubectl, `default`, which a Node ignores."""

    api_version: str
    kind: str
    namespace: str
    name: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        """The same object in every version of its API: group, kind, namespace, name."""
        return self.api_version.rpartition("/")[0], self.kind, self.namespace, self.name

    def text(self) -> str:
        """Return how messages name the object."""
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True)
class Manifest:
    """A text of YAML documents, or of JSON, and the objects that it describes, in their order."""

    text: str
    objects: tuple[ObjectId, ...]


class ManifestError(ValueError):
    """A text that is no manifest; `secret` says that it holds one."""

    def __init__(self, message: str, *, secret: bool = False) -> None:
        super().__init__(message)
        self.secret = secret


def objects_of(text: str) -> tuple[ObjectId, ...]:
    """Return the objects that a text describes. Raises ManifestError."""
    try:
        documents = list(yaml.load_all(text, Loader=yaml.CSafeLoader))
    except yaml.YAMLError as error:
        raise ManifestError(f"it is not YAML: {' '.join(str(error).split())}") from None
    objects = tuple(_objects(document for document in documents if document is not None))
    if not objects:
        raise ManifestError("it describes no object")
    if twice := next((one for index, one in enumerate(objects) if one.key in [o.key for o in objects[:index]]), None):
        raise ManifestError(f"it describes {twice.text()} twice")
    return objects


def _objects(documents: Iterator[Any]) -> Iterator[ObjectId]:
    for document in documents:
        if not isinstance(document, dict):
            raise ManifestError(f"expected an object with `apiVersion` and `kind`, found {kind_of(document)}")
        if str(document.get("kind")).endswith("List") and isinstance(document.get("items"), list):
            yield from _objects(item for item in document["items"])
        else:
            yield _identity(document)


def _identity(document: Mapping[str, Any]) -> ObjectId:
    metadata = document.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    version, kind, name = document.get("apiVersion"), document.get("kind"), metadata.get("name")
    namespace = metadata.get("namespace") or "default"
    for key, value, form in (
        ("apiVersion", version, _VERSION),
        ("kind", kind, _KIND),
        ("metadata.name", name, _NAME),
        ("metadata.namespace", namespace, _NAME),
    ):
        if not (isinstance(value, str) and form.fullmatch(value)):
            raise ManifestError(f"{kind or 'an object'} has no usable `{key}`, but {kind_of(value)}")
    found = ObjectId(str(version), str(kind), namespace, str(name))
    if found.key[:2] == ("", "Secret"):
        raise ManifestError(f"{found.text()} is a secret, and the cloud-config is public", secret=True)
    return found


def _manifest(value: object, info: ValidationInfo) -> Manifest:
    if isinstance(value, str):
        path = resolve(line_of(value), info)
        where, text = f"{path}: ", text_of(path, "manifests")
    elif isinstance(value, dict | list):
        data = plain_data({"apiVersion": "v1", "kind": "List", "items": value} if isinstance(value, list) else value)
        where, text = "", json.dumps(data, indent=_INDENT)
    else:
        raise problem("wrong-type", f"expected the path of a file or an object, found {kind_of(value)}")
    try:
        return Manifest(text if text.endswith("\n") else f"{text}\n", objects_of(text))
    except ManifestError as error:
        if error.secret:
            hint = "create it with kubectl, once; or name one that an operator of secrets makes"
            raise problem("secret-in-manifest", f"{where}{error}", hint) from None
        raise problem("invalid-manifest", f"{where}{error}", "see what `kubectl apply --dry-run=client` says") from None


ManifestSource: TypeAlias = Annotated[
    Manifest, PlainValidator(_manifest), WithJsonSchema({"type": ["string", "object", "array"]})
]
