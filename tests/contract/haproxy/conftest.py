"""Fixtures: a HAProxy beside a foreign site, gone after the test."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from tests.contract.haproxy.echo import Echo
from tests.contract.haproxy.world import Balancer

from coupler.registrator.model import Desired

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.contract.traffic import App


@pytest.fixture(params=["spawn"])
def haproxy(request: pytest.FixtureRequest, tmp_path: Path, apps: Callable[..., App]) -> Iterator[Balancer]:
    """A HAProxy that runs with our first, empty file beside the user's own; named for how."""
    foreign = apps("theirs-0"), apps("theirs-1")
    balancer = Balancer(tmp_path, foreign, master="master" in request.param, tls="tls" in request.param)
    balancer.write_base()
    asyncio.run(balancer.adapter().prepare(Desired()))
    balancer.start()
    yield balancer
    balancer.kill()


@pytest.fixture
def echoes() -> Iterator[Callable[..., Echo]]:
    """Start instances that answer with what they are sent; they end with the test."""
    started: list[Echo] = []

    def start(*arguments: Any, **options: Any) -> Echo:
        started.append(Echo(*arguments, **options))
        return started[-1]

    yield start
    for echo in started:
        echo.stop()
