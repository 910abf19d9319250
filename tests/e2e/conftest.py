"""Labs for tests: real machines, always taken down."""

from __future__ import annotations

import os
from itertools import count
from typing import TYPE_CHECKING

import pytest

from coupler.lab import Lab, requirements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_numbers = count(1)


@pytest.fixture(scope="session")
def lab_host() -> None:
    """Skip where this host cannot run the lab, and say what it lacks."""
    missing = [f"{requirement.what} ({requirement.mend})" for requirement in requirements() if not requirement.ok]
    if missing:
        pytest.skip(f"this host cannot run the lab: {', '.join(missing)}")


@pytest.fixture(scope="session")
def make_lab(lab_host: None) -> Iterator[Callable[[], Lab]]:
    """Make labs with names and subnets of their own; at the end nothing of them is left."""
    labs: list[Lab] = []

    def make() -> Lab:
        lab = Lab(f"test-{os.getpid()}-{next(_numbers)}")
        labs.append(lab)
        return lab

    yield make
    for lab in labs:
        lab.down(forget=True)
