"""docs/cluster-yaml.md and others: examples load, and tables list every key with the model's default."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest

from coupler.model import Cluster, load_cluster
from coupler.model.node import NodeRow
from coupler.model.section import Section
from coupler.model.services import ArtifactOverride

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

DOCS = (Path(__file__).parents[3] / "docs" / "cluster-yaml.md").read_text()
MORE = [
    (Path(__file__).parents[3] / "docs" / name).read_text()
    for name in ("load-balancer.md", "kubernetes.md", "network.md", "fleet.md", "certificates.md")
]
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", "".join([DOCS, *MORE]), re.MULTILINE | re.DOTALL)
ROWS = dict(re.findall(r"^\| `([^`]+)` \| ([^|]*?) \|", DOCS, re.MULTILINE))
REQUIRED = {
    "version": "version: 1",
    "name": "name: demo",
    "git": "git: {repository: 'git://10.0.0.5/demo.git'}",
    "nodes": "nodes: [{name: node-1, address: 10.0.0.11, roles: [control]}]",
}
LISTS: dict[str, tuple[str, type[Section]]] = {
    "artifacts": ("artifacts.NAME.", ArtifactOverride),
    "nodes": ("nodes[].", NodeRow),
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_loads(tmp_path: Path, example: str) -> None:
    rest = [text for key, text in REQUIRED.items() if not re.search(rf"^{key}:", example, re.MULTILINE)]
    (tmp_path / "cluster.yaml").write_text("\n".join([example, *rest]))
    assert load_cluster(tmp_path / "cluster.yaml").cluster


def test_the_tables_list_every_key_with_its_default() -> None:
    assert dict(keys_of(Cluster, "")) == ROWS


def keys_of(section: type[Section], prefix: str) -> Iterator[tuple[str, str]]:
    for name, field in section.model_fields.items():
        key = prefix + (field.alias or name)
        inner = [kind for kind in (field.annotation, *get_args(field.annotation)) if _is_section(kind)]
        if key in LISTS:
            below, row = LISTS[key]
            yield from [(key, "")] if key == "artifacts" else []
            yield from keys_of(row, below)
        elif inner:
            yield from keys_of(inner[0], f"{key}.")
        else:
            yield key, shown(field)


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def shown(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if default is None or default in ({}, ()):
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`[{', '.join(default)}]`" if isinstance(default, tuple) else f"`{default}`"
