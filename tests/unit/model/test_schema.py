from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from coupler.model import schema
from coupler.model.fields import plain_data
from coupler.model.scaffold import scaffold
from coupler.model.source import parse

CLUSTERS = Path(__file__).parents[2] / "fixtures" / "cluster"
CHECKED_IN = Path(schema.__file__).with_name(schema.SCHEMA_NAME)
VALIDATOR = jsonschema.Draft202012Validator(json.loads(CHECKED_IN.read_text()))


def as_an_editor_reads(text: str) -> Any:
    return plain_data(parse(text, "f").data)


def test_the_checked_in_schema_is_that_of_the_model() -> None:
    assert CHECKED_IN.read_text() == schema.schema_text(), "run: make schema"


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(VALIDATOR.schema)


@pytest.mark.parametrize("path", sorted((CLUSTERS / "valid").glob("*.yaml")), ids=lambda path: path.stem)
def test_it_accepts_every_valid_cluster(path: Path) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(as_an_editor_reads(path.read_text()))] == []


@pytest.mark.parametrize(
    "code", ["unknown-key", "missing-key", "not-allowed", "out-of-range", "invalid-version", "unsupported-version"]
)
def test_it_refuses_what_an_editor_can_see(code: str) -> None:
    data = as_an_editor_reads((CLUSTERS / "invalid" / f"{code}.yaml").read_text())
    assert not VALIDATOR.is_valid(data)


def test_a_new_file_names_its_schema_in_the_first_line() -> None:
    assert scaffold("a").splitlines()[0] == f"# yaml-language-server: $schema=./{schema.SCHEMA_NAME}"
