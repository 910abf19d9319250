"""Whatever document comes: no crash; what the checker accepts the applier applies; what it refuses changes nothing.

`make test` tries the same few hundred documents every time. `make fuzz` tries FUZZ_EXAMPLES new ones for each property.
"""

import contextlib
import io
import os
import tempfile
from pathlib import Path

from documents import DOCUMENTS, LIKELY, TYPED
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coupler.cloudinit import check, check_data
from coupler.cloudinit.__main__ import main
from coupler.cloudinit.fix import UnfixableError, fix
from coupler.cloudinit.golang import to_bytes
from coupler.cloudinit.grammar import Lineage
from coupler.cloudinit.parse import YamlError, parse
from coupler.cloudinit.plan import plan_config
from coupler.cloudinit.session import UnreadableError, read_config
from coupler.cloudinit.verdict import validate
from coupler.errors import Severity

_FUZZ_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
_LINEAGES = st.sampled_from(list(Lineage))
_NOT_FOR_A_SCRATCH_ROOT = {"empty-substitution", "missed-substitution", "encoded-substitution", "nothing-to-check"}
"""What may change a document after it was checked: addresses that only the machine knows."""


def _tried(examples: int) -> settings:
    """Return how often a property is tried: `examples` times, always the same; for fuzzing as often as asked for."""
    return settings(
        max_examples=_FUZZ_EXAMPLES or examples,
        derandomize=not _FUZZ_EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )


def _applied(text: str, lineage: Lineage | None) -> tuple[int, list[str]]:
    """Apply a document into a scratch root with what every image has; return the exit code and what is new there."""
    with tempfile.TemporaryDirectory() as folder:
        document, root = Path(folder, "user-data"), Path(folder, "root")
        (root / "usr/share/coreos").mkdir(parents=True)
        (root / "usr/share/coreos/update.conf").write_text("GROUP=stable\n")
        document.write_bytes(to_bytes(text))
        own = [f"--as={lineage}"] if lineage else []
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            exit_code = main([*own, f"--from-file={document}", f"--root={root}"])
        return exit_code, sorted(path.name for path in root.iterdir() if path.name != "usr")


@_tried(60)
@given(text=DOCUMENTS, lineage=_LINEAGES)
def test_checker_answers_about_any_text(text: str, lineage: Lineage) -> None:
    assert validate(text, lineage).exit_code in (0, 1)
    for finding in check_data(to_bytes(text), "user-data", lineage):
        assert finding.text()


@_tried(60)
@given(text=DOCUMENTS, lineage=st.sampled_from([None, *Lineage]))
def test_applier_ends_with_any_text(text: str, lineage: Lineage | None) -> None:
    assert _applied(text, lineage)[0] in (0, 1)


@_tried(60)
@given(text=DOCUMENTS, lineage=_LINEAGES)
def test_what_the_checker_accepts_can_be_planned(text: str, lineage: Lineage) -> None:
    if not text.startswith("#cloud-config\n") or validate(text, lineage).exit_code:
        return
    assert plan_config(read_config(text, lineage), lineage, {})


@_tried(80)
@given(text=st.one_of(LIKELY, LIKELY, TYPED, DOCUMENTS), lineage=_LINEAGES)
def test_what_the_checker_accepts_is_applied(text: str, lineage: Lineage) -> None:
    found = check(text, "user-data", lineage)
    codes = {finding.code for finding in found}
    refused = any(finding.severity is Severity.ERROR for finding in found)
    if refused or codes & _NOT_FOR_A_SCRATCH_ROOT or "coreos_ssh_import" in text.replace("-", "_"):
        return
    assert _applied(text, lineage)[0] == 0


@_tried(60)
@given(text=DOCUMENTS, lineage=_LINEAGES)
def test_what_cannot_be_read_changes_nothing(text: str, lineage: Lineage) -> None:
    if not text.startswith("#cloud-config\n"):
        return
    try:
        parse(text, lineage)
        read_config(text, lineage)
    except (YamlError, UnreadableError):
        if "$" not in text:
            assert _applied(text, lineage) == (1, [])


@_tried(60)
@given(text=DOCUMENTS, lineage=_LINEAGES)
def test_mending_twice_is_mending_once_and_brings_nothing_new(text: str, lineage: Lineage) -> None:
    try:
        fixed = fix(text, "user-data", lineage)
    except UnfixableError:
        return
    again = fix(fixed.text, "user-data", lineage)
    assert (again.text, again.mended) == (fixed.text, ())
    assert {finding.code for finding in fixed.left} <= {finding.code for finding in check(text, "user-data", lineage)}
    assert (fixed.text == text) is (fixed.mended == ())
