"""Objects → offer: every file in `fixtures/kubernetes/cases` is one case."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from tests.unit.registrator.kubernetes.cases import CASES, load, outcome, world_of

from coupler.registrator.merge import merge

if TYPE_CHECKING:
    from pathlib import Path

FILES = sorted(CASES.glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_case_comes_to_what_it_says(path: Path) -> None:
    case = load(path)
    world = world_of(case)
    for item in case["objects"]:
        world.put(item["kind"], item)
    assert outcome(world, case) == case["comes to"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_order_of_objects_makes_no_difference(path: Path) -> None:
    case = load(path)
    for seed in range(5):
        world = world_of(case)
        items = list(case["objects"])
        Random(seed).shuffle(items)
        for item in items:
            world.put(item["kind"], item)
            if seed % 2 and "pool" not in case["settings"]:  # addresses that were given stay, once they are given
                outcome(world, case)
        assert outcome(world, case) == case["comes to"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_merge_finds_nothing_to_object_to(path: Path) -> None:
    case = load(path)
    world = world_of(case)
    for item in case["objects"]:
        world.put(item["kind"], item)
    offer = world.offer(0.0)
    assert merge([("kubernetes", offer)]).problems == offer.problems
