"""Fixtures: a HAProxy beside a foreign site, gone after the test."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.contract.haproxy.world import Balancer

from coupler.registrator.model import Desired

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.contract.traffic import App


@pytest.fixture(params=["spawn"])
def haproxy(request: pytest.FixtureRequest, tmp_path: Path, apps: Callable[..., App]) -> Iterator[Balancer]:
    """A HAProxy that runs with our first, empty file beside the user's own."""
    balancer = Balancer(tmp_path, (apps("theirs-0"), apps("theirs-1")), master=request.param == "master")
    balancer.write_base()
    asyncio.run(balancer.adapter().prepare(Desired()))
    balancer.start()
    yield balancer
    balancer.kill()
