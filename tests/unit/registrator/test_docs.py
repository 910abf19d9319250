"""What the manual says of the configuration file and of announcements is what the code reads."""

from __future__ import annotations

import dataclasses
import re
import typing
from pathlib import Path

from coupler.registrator.settings import EtcdSettings, Settings, parse
from coupler.registrator.sources.announced import KEYS

MANUAL = (Path(__file__).parents[3] / "docs" / "registrator.md").read_text()


def keys(kind: type, prefix: str = "") -> dict[str, object]:
    """Return every key of the file with its default."""
    found: dict[str, object] = {}
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if field.metadata.get("derived"):
            continue
        name = f"{prefix}{field.name.replace('_', '-')}"
        options = [hints[field.name], *typing.get_args(hints[field.name])]
        section = next((option for option in options if dataclasses.is_dataclass(option)), None)
        if isinstance(section, type) and section is not EtcdSettings:
            found |= keys(section, f"{name}.")
        else:
            found[name] = field.default
    return found


def test_the_table_has_every_key_and_no_other() -> None:
    documented = set(re.findall(r"^\| `([a-z.-]+)` \|", MANUAL, re.MULTILINE)) - KEYS.keys()
    assert documented == set(keys(Settings))


def test_defaults_are_what_the_table_says() -> None:
    for name, default in keys(Settings).items():
        if isinstance(default, (str, bool, float)) and default != "":
            shown = str(default).lower() if isinstance(default, bool) else str(default)
            assert f"| `{name}` | `{shown}` |" in MANUAL, name


def test_every_key_of_a_document_is_there() -> None:
    section = MANUAL.partition("## Announcements")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert {key for row in rows for key in re.findall(r"`([a-z-]+)`", row)} == set(KEYS)


def test_the_example_can_be_read() -> None:
    [example] = re.findall(r"```yaml\n(.*?)```", MANUAL, re.DOTALL)
    assert parse(example, "example").precedence == ("kubernetes", "announcements")
