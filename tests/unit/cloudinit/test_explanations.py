"""Every code that the checker can give is explained, and the examples are true."""

import ast
from pathlib import Path

import pytest

import coupler.cloudinit
from coupler.cloudinit import check_data
from coupler.cloudinit.explain import explanations
from coupler.cloudinit.findings import VERDICTS
from coupler.errors import Severity

_SOURCES = Path(coupler.cloudinit.__file__).parent
_MAKERS = {"finding", "at", "make", "Finding"}


def _codes(path: Path) -> set[str]:
    """Return the codes that a module gives: the texts in the first argument of what makes a finding."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    names = {call: getattr(call.func, "attr", getattr(call.func, "id", "")) for call in calls}
    first = [call.args[0] for call in calls if names[call] in _MAKERS and call.args]
    texts = [node.value for argument in first for node in ast.walk(argument) if isinstance(node, ast.Constant)]
    return {text for text in texts if isinstance(text, str) and " " not in text}


def _possible_codes() -> set[str]:
    modules = [_SOURCES / "findings.py", *_SOURCES.glob("lint_*.py")]
    return set(VERDICTS.values()) | {"yaml-syntax"} | set().union(*map(_codes, modules))


def test_every_possible_code_is_explained_and_no_other() -> None:
    assert set(explanations()) == _possible_codes()


@pytest.mark.parametrize("code", explanations())
def test_example_has_the_fault_before_and_not_after(code: str) -> None:
    explanation = explanations()[code]
    before, after = (check_data(data, "user-data", explanation.lineage) for data in explanation.examples())
    assert code in {finding.code for finding in before}
    assert code not in {finding.code for finding in after}
    assert [finding.text() for finding in after if finding.severity is Severity.ERROR] == []


@pytest.mark.parametrize("code", explanations())
def test_text_says_all_of_it(code: str) -> None:
    explanation = explanations()[code]
    text = explanation.text()
    assert text.startswith(f"{code}: {explanation.title}\n")
    for part in (explanation.why, explanation.program, explanation.mend):
        assert part in " ".join(text.split())
    assert all(ord(character) >= ord(" ") or character == "\n" for character in text)
