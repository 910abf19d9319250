"""Shares of requests as weights: every share gets its part, as closely as whole numbers up to 256 allow."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coupler.registrator.model import MAX_WEIGHT, Endpoint, State
from coupler.registrator.sources.kubernetes.blend import Portion, blend

READY, DRAIN, DOWN = State.READY, State.DRAIN, State.DOWN


def some(name: str, *weights: int, state: State = READY) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(f"{name}{n}", f"10.0.0.{n + 1}", 80, state, weight) for n, weight in enumerate(weights))


def sums(portions: list[Portion]) -> list[int]:
    """Return the sum of weights that each portion's ready endpoints got."""
    weights = {endpoint.uid: endpoint.weight for endpoint in blend(portions) if endpoint.state is READY}
    return [sum(weights.get(endpoint.uid, 0) for endpoint in endpoints) for _, endpoints in portions]


@pytest.mark.parametrize(
    ("portions", "wanted"),
    [
        ([(90, some("a", 100)), (10, some("b", 100))], [256, 28]),
        ([(50, some("a", 100, 100)), (50, some("b", 100))], [256, 256]),
        ([(1, some("a", 100)), (1, some("b", 100, 100, 100, 100))], [256, 256]),
        ([(1, some("a", *[100] * 100)), (99, some("b", 100))], [3, 256]),
        ([(1, some("a", 100)), (0, some("b", 100))], [256, 0]),
        ([(0, some("a", 100)), (0, some("b", 100))], [0, 0]),
        ([(50, some("a", 100)), (50, some("b", 100, state=DOWN))], [256, 0]),
        ([(50, some("a", 100)), (50, ())], [256, 0]),
        ([(3, some("a", 0, 100)), (1, some("b", 100))], [256, 85]),
    ],
)
def test_a_share_gets_its_part(portions: list[Portion], wanted: list[int]) -> None:
    assert sums(portions) == wanted


def test_one_portion_keeps_its_endpoints_as_they_are() -> None:
    endpoints = some("a", 7, 100)
    assert blend([(5, endpoints)]) == endpoints
    assert [endpoint.weight for endpoint in blend([(0, endpoints)])] == [0, 0]


def test_what_is_not_ready_keeps_its_state_and_waits_with_the_usual_weight() -> None:
    portions = [(1, some("a", 100) + some("late", 100, state=DOWN)), (1, some("b", 100) + some("old", 9, state=DRAIN))]
    blended = {endpoint.uid: (endpoint.state, endpoint.weight) for endpoint in blend(portions)}
    assert blended == {"a0": (READY, 256), "late0": (DOWN, 256), "b0": (READY, 256), "old0": (DRAIN, 256)}


def test_an_endpoint_of_two_portions_takes_both_parts() -> None:
    shared = some("a", 100)
    assert [endpoint.weight for endpoint in blend([(1, shared), (3, shared)])] == [MAX_WEIGHT]
    other = (Endpoint("a0", "10.0.0.1", 81),)
    assert [(e.uid, e.port, e.weight) for e in blend([(1, shared), (3, other)])] == [("a0", 80, 85), ("a0:81", 81, 256)]


NUMBERS = count()
endpoints = st.lists(
    st.builds(
        lambda state, weight: Endpoint(f"e{next(NUMBERS)}", "10.0.0.1", 80, state, weight),
        st.sampled_from((READY, READY, READY, DRAIN, DOWN)),
        st.integers(0, MAX_WEIGHT),
    ),
    max_size=8,
).map(tuple)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # nothing is timed
@given(st.lists(st.tuples(st.integers(0, 100), endpoints), min_size=2, max_size=4))
def test_whatever_the_shares_weights_are_weights_and_parts_are_near(portions: list[Portion]) -> None:
    blended = blend(portions)
    assert all(0 <= endpoint.weight <= MAX_WEIGHT for endpoint in blended)
    assert len(blended) == sum(len(entry) for _, entry in portions)
    got = sums(portions)
    live = [
        (share, got[n])
        for n, (share, e) in enumerate(portions)
        if share and any(x.weight and x.state is READY for x in e)
    ]
    assert all(total >= 1 for _, total in live)
    assert all(got[n] == 0 for n, (share, _) in enumerate(portions) if not share)
    if live:
        assert max(endpoint.weight for endpoint in blended if endpoint.state is READY) >= 1
        share, total = max(live, key=lambda entry: entry[1])
        for other, theirs in live:
            exact = total * other / share
            assert abs(theirs - exact) <= 1 + exact / total or theirs == 1
