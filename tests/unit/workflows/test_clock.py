"""When a node's clock counts as wrong."""

import pytest

from coupler.workflows.clock import problem_with, skew_of
from coupler.workflows.script import Answer


@pytest.mark.parametrize(
    ("theirs", "skew"),
    [("1000", 0.0), ("999", -0.5), ("1003", 0.0), ("1063", 60.0), ("998", -1.5), ("900", -99.5), ("", 0.0), ("x", 0.0)],
)
def test_a_whole_second_and_the_time_of_asking_are_no_skew(theirs, skew):
    assert skew_of(Answer(f"time={theirs}"), before=1000.5, after=1003.0) == skew


@pytest.mark.parametrize(
    ("skew", "problem"),
    [
        (60.0, None),
        (-60.0, None),
        (61.0, "its clock is 61 s ahead of ours"),
        (-4e6, "its clock is 4000000 s behind ours"),
    ],
)
def test_a_clock_may_be_a_minute_off(skew, problem):
    assert problem_with(skew) == problem
