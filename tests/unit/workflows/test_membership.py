"""Whether members of etcd can still agree when one goes or comes."""

from __future__ import annotations

import pytest

from coupler.adapters.etcd import Member
from coupler.workflows.membership import Quorum


def member(number: int, *, learner: bool = False) -> Member:
    return Member(number, f"node-{number}", url(number), started=True, learner=learner)


def url(number: int) -> str:
    return f"https://10.0.0.{number}:2380"


def quorum(voters: int, *healthy: int) -> Quorum:
    return Quorum(voters, frozenset(map(url, healthy)))


@pytest.mark.parametrize(
    ("before", "goes", "agree"),
    [
        (quorum(3, 1, 2), 3, True),
        (quorum(3, 1, 2, 3), 3, True),
        (quorum(3, 1, 3), 3, False),
        (quorum(2, 1, 2), 2, True),
        (quorum(1, 1), 1, False),
        (quorum(5, 1, 2, 3), 4, True),
        (quorum(5, 1, 2, 3), 3, False),
    ],
)
def test_one_may_go_where_most_of_those_that_are_left_are_healthy(before: Quorum, goes: int, agree: bool) -> None:
    assert before.after_removing([member(goes)]) is agree


def test_a_learner_may_always_go() -> None:
    assert quorum(3, 1, 2).after_removing([member(4, learner=True)])


@pytest.mark.parametrize(
    ("before", "agree"),
    [(quorum(1, 1), False), (quorum(2, 1, 2), True), (quorum(3, 1, 2), False), (quorum(3, 1, 2, 3), True)],
)
def test_one_may_come_where_the_others_agree_without_it(before: Quorum, agree: bool) -> None:
    assert before.after_adding() is agree
