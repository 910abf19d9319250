"""What patches make of an object: a merge patch, and server-side apply with the fields that each manager owns.

Lists are owned as a whole here; the real server merges those whose schema names keys.
"""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]
_IDENTITY = {"apiVersion", "kind"}


def merged(old: Any, patch: Any) -> Any:
    """Return what a merge patch makes of a value (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def applied(old: Object, config: Object, manager: str) -> Object:
    """Return what an apply makes of an object: its fields are as it says, those that it had and names no more go.

    Another manager's field that it names is taken from that one, as with `force`.
    """
    owned = {entry["manager"]: entry["fieldsV1"] for entry in old.get("metadata", {}).get("managedFields", ())}
    fields = _fields({key: value for key, value in config.items() if key not in _IDENTITY})
    for name in ("name", "namespace"):
        fields.get("f:metadata", {}).pop(f"f:{name}", None)
    kept = old
    for field in _paths(owned.pop(manager, {})):
        if field not in _paths(fields):
            kept = _without(kept, field)
    others = {name: theirs for name, entry in owned.items() if (theirs := _less(entry, fields))}
    result: Object = merged(kept, config)
    result["metadata"]["managedFields"] = [
        {
            "manager": name,
            "operation": "Apply",
            "apiVersion": config["apiVersion"],
            "fieldsType": "FieldsV1",
            "fieldsV1": entry,
        }
        for name, entry in sorted({**others, manager: fields}.items())
    ]
    return result


def _fields(value: Any) -> Object:
    """Return the fields of a value, as FieldsV1 of the real server names them: `f:NAME`, each with those inside."""
    return {f"f:{key}": _fields(inner) for key, inner in value.items()} if isinstance(value, dict) else {}


def _paths(fields: Object, above: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    if not fields:
        return {above} if above else set()
    return {path for key, inner in fields.items() for path in _paths(inner, (*above, key[2:]))}


def _less(fields: Object, taken: Object) -> Object:
    """Return the fields without those that are taken."""
    left = {key: _less(inner, taken.get(key, {})) for key, inner in fields.items() if inner or key not in taken}
    return {key: inner for key, inner in left.items() if inner or not fields[key]}


def _without(value: Any, path: tuple[str, ...]) -> Any:
    if not path or not isinstance(value, dict) or path[0] not in value:
        return value
    if len(path) == 1:
        return {key: inner for key, inner in value.items() if key != path[0]}
    return {**value, path[0]: _without(value[path[0]], path[1:])}
