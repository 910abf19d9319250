"""A validation error of pydantic, said in the words of cluster.yaml, with its place and a way out."""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from coupler.errors import Finding, Severity
from coupler.model.cluster import Cluster
from coupler.model.problem import did_you_mean, kind_of, listed
from coupler.model.section import Section

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

    from coupler.model.source import KeyPath, Source

_EXPECTED = {
    "model_type": "keys with values, one per line",
    "mapping_type": "keys with values, one per line",
    "dict_type": "keys with values, one per line",
    "tuple_type": "a list, whose items begin with `- `",
}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "less_than_equal": ("at most", "le"),
}


def explain(source: Source, detail: ErrorDetails) -> Finding:
    """Return the finding for one pydantic error about `source`."""
    path = tuple(part for part in detail["loc"] if part != "[key]")
    of_key = len(path) != len(detail["loc"]) or detail["type"] == "extra_forbidden"
    code, message, hint = _say(path, detail)
    if detail["type"] == "missing" and path in source.positions:
        message, hint = f"the key `{path[-1]}` has no value", None
    return source.finding(code, Severity.ERROR, path, message, hint, of_key=of_key)


def _say(path: KeyPath, detail: ErrorDetails) -> tuple[str, str, str | None]:
    kind, given, context = detail["type"], detail["input"], detail.get("ctx", {})
    name = str(path[-1]) if path else ""
    if "message" in context:
        return kind, context["message"], context["hint"]
    if kind == "missing":
        return "missing-key", f"the key `{name}` is missing", _how_to_add(path)
    if kind == "extra_forbidden":
        known = list(_fields_of(_annotation_at(path[:-1])))
        keys = f"the keys here are {', '.join(known)}"
        return "unknown-key", f"there is no key `{name}` here", did_you_mean(name, known) or keys
    if kind == "enum":
        known = [str(member) for member in _annotation_at(path)]
        message = f"{kind_of(given)} is not possible here: choose {listed(known)}"
        return "not-allowed", message, did_you_mean(given, known) if isinstance(given, str) else None
    if kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        return "out-of-range", f"`{given}` is out of range", f"write {words} {context[bound]}"
    return "wrong-type", f"expected {_EXPECTED.get(kind, detail['msg'])}, found {kind_of(given)}", None


def _how_to_add(path: KeyPath) -> str:
    field = _fields_of(_annotation_at(path[:-1])).get(str(path[-1]))
    meaning = f" {field.description}" if field and field.description else ""
    if len(path) == 1:
        return f"add `{path[0]}:` at the left margin.{meaning}"
    parent = ".".join(str(part) for part in path[:-1] if isinstance(part, str))
    place = f"to this item of `{parent}`" if isinstance(path[-2], int) else f"below `{parent}:`"
    return f"add `{path[-1]}:` {place}.{meaning}"


def _annotation_at(path: KeyPath) -> Any:
    """Return the type of the value at `path` of a cluster.yaml, or None for a path that no model has."""
    kind: Any = Cluster
    for part in path:
        kind = _unwrapped(kind)
        if get_origin(kind) in {tuple, Mapping}:
            kind = get_args(kind)[0 if isinstance(part, int) else 1]
        else:
            field = _fields_of(kind).get(str(part))
            kind = field.annotation if field else None
    return _unwrapped(kind)


def _unwrapped(kind: Any) -> Any:
    """Return the type inside `Annotated[…]` and `… | None`."""
    while get_origin(kind) in {Annotated, Union, UnionType}:
        kind = get_args(kind)[0]
    return kind


def _fields_of(kind: Any) -> dict[str, FieldInfo]:
    """Return key → field of a section; empty for any other type."""
    if not (isinstance(kind, type) and issubclass(kind, Section)):
        return {}
    return {field.alias or name: field for name, field in kind.model_fields.items()}
