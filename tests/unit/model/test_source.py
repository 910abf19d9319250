from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupler.model.source import SourceError, parse, read_text

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "text", ["off", "no", "1.30", "3.5", "0644", "04:00", "1_000", "2026-11-22", "0x1F", "=", "1e3"]
)
def test_an_unquoted_scalar_stays_the_text_that_was_written(text: str) -> None:
    data = parse(f"key: {text}", "f").data
    assert data == {"key": text}
    assert data["key"].plain


def test_a_quoted_scalar_is_told_apart() -> None:
    data = parse("[true, 'true']", "f").data
    assert [item.plain for item in data] == [True, False]


@pytest.mark.parametrize("null", ["", "~", "null"])
def test_null_is_nothing_unless_quoted(null: str) -> None:
    assert parse(f"key: {null}", "f").data == {"key": None}
    assert parse(f"key: '{null}'", "f").data == {"key": null}


def test_a_merge_does_not_replace_what_is_written() -> None:
    source = parse("a: &a {x: 1, y: 2}\nb:\n  y: 3\n  <<: *a\nc:\n  <<: [{x: 4}, *a]\n", "f")
    assert source.data["b"] == {"x": "1", "y": "3"}
    assert source.data["c"] == {"x": "4", "y": "2"}
    assert source.positions["b", "y"].value == (3, 6)
    assert source.positions["b", "x"].value == (1, 11)


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 100_000,
        "- " * 100_000,
        "? " * 5_000,
        "a: " + "{b: " * 5_000,
        "\n".join(" " * depth + "a:" for depth in range(500)),
        "a: &a {<<: *a}",
        "a: &a [*a]",
    ],
    ids=["brackets", "dashes", "keys", "braces", "indents", "self-merge", "self-alias"],
)
def test_depth_has_a_bound(text: str) -> None:
    with pytest.raises(SourceError) as caught:
        parse(text, "f")
    assert [finding.code for finding in caught.value.findings] == ["too-deep"]


@pytest.mark.parametrize("use", ["[*a{0}, *a{0}]", "{{<<: [*a{0}, *a{0}]}}"], ids=["alias", "merge"])
def test_a_bomb_of_aliases_is_refused(use: str) -> None:
    bomb = "a0: &a0 {k: v}\n" + "".join(f"a{n + 1}: &a{n + 1} {use.format(n)}\n" for n in range(40))
    with pytest.raises(SourceError) as caught:
        parse(bomb, "f")
    assert [finding.code for finding in caught.value.findings] == ["too-large"]


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"\xef\xbb\xbfname: a\n")
    assert parse(read_text(tmp_path / "f"), "f").data == {"name": "a"}


@given(st.text(max_size=80) | st.text(alphabet="ab:-[]{}&*<!?|>'\"#%@` \n\t,", max_size=80))
def test_any_text_is_parsed_or_refused_with_findings(text: str) -> None:
    try:
        parse(text, "f")
    except SourceError as error:
        findings = error.findings
    else:
        return
    assert findings
