"""What is left of an object as soon as it is decoded, for kinds of which there are many: what is read, and no more.

While a long list is under way its objects wait as they are; a whole Pod is some ten times what is read of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coupler.registrator.sources.kubernetes.reflector import without_managed_fields
from coupler.registrator.sources.kubernetes.services import with_instances

if TYPE_CHECKING:
    from collections.abc import Callable

    from coupler.registrator.sources.kubernetes.objects import Json

_CONTAINER = ("ports", "restartPolicy")
_STATUS = ("phase", "podIP", "podIPs")


def trim_of(kind: str) -> Callable[[Json], Json]:
    """Return what trims objects of a kind."""
    return {"EndpointSlice": _slice, "Pod": _pod}.get(kind, without_managed_fields)


def _slice(item: Json) -> Json:
    return with_instances(without_managed_fields(item))


def _pod(item: Json) -> Json:
    spec, status = item.get("spec") or {}, item.get("status") or {}
    containers = {
        name: [_only(container, _CONTAINER) for container in spec.get(name) or ()]
        for name in ("containers", "initContainers")
    }
    ready = [entry for entry in status.get("conditions") or () if entry.get("type") == "Ready"]
    item["spec"], item["status"] = containers, _only(status, _STATUS) | {"conditions": ready}
    return without_managed_fields(item)


def _only(item: Json, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: item[name] for name in names if name in item}
