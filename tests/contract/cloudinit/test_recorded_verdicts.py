"""Our validator against what the real ones said, for every recorded document and both lineages."""

import pytest
from recordings import Case, cases

from coupler.__main__ import run
from coupler.cloudinit.golang import to_text
from coupler.cloudinit.userdata import decompress
from coupler.cloudinit.verdict import validate


@pytest.mark.parametrize("case", cases(), ids=str)
def test_verdict_and_lines_are_those_of_the_real_program(case: Case) -> None:
    data, _ = decompress(case.path.read_bytes())
    report = validate(to_text(data), case.lineage)
    assert set(report.text()) == case.validate_lines
    assert report.exit_code == case.record[case.lineage]["validate_exit"]


@pytest.mark.parametrize("case", cases(), ids=str)
def test_exact_check_prints_what_the_real_program_prints(
    case: Case, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    recorded = case.record[case.lineage]
    assert run(["check", "--as", case.lineage, "--exact", str(case.path)]) == recorded["validate_exit"]
    printed = capsysbinary.readouterr()
    assert to_text(printed.out).splitlines() == recorded["validate_lines"]
    assert printed.err == b""
