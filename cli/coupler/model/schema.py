"""The JSON Schema of cluster.yaml, for editors. `python -m coupler.model.schema` writes the checked-in copy anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import GenerateJsonSchema

from coupler.model.cluster import Cluster

if TYPE_CHECKING:
    from pydantic.json_schema import JsonSchemaMode
    from pydantic_core.core_schema import CoreSchema

SCHEMA_NAME = "cluster-v1.schema.json"


class _Generator(GenerateJsonSchema):
    """pydantic's schema without the titles that only repeat the key."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 (pydantic's signature)
        """No key has a title."""
        return False

    def encode_default(self, dft: Any) -> Any:
        """Write texts of our own kinds (`Version`, `Duration`) as texts."""
        return str(dft) if isinstance(dft, str) else super().encode_default(dft)

    def generate(self, schema: CoreSchema, mode: JsonSchemaMode = "validation") -> dict[str, Any]:
        """Return the schema with its dialect and a title."""
        title = "Coupler's cluster.yaml, version 1"
        return {"$schema": self.schema_dialect, **super().generate(schema, mode), "title": title}


def schema_text() -> str:
    """Return the schema as JSON text."""
    return json.dumps(Cluster.model_json_schema(schema_generator=_Generator), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name(SCHEMA_NAME).write_text(schema_text(), encoding="utf-8")
