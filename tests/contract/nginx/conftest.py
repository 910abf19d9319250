"""Fixtures: an nginx beside a foreign site, and instances that mirror, gone after the test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.contract.nginx.world import Balancer, Mirror

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.contract.traffic import App


@pytest.fixture(params=["plain"])
def nginx(request: pytest.FixtureRequest, tmp_path: Path, apps: Callable[..., App]) -> Iterator[Balancer]:
    """An nginx that runs with our first, empty files inside the user's own."""
    balancer = Balancer(tmp_path, (apps("theirs-0"), apps("theirs-1")), accept_proxy=request.param == "accept-proxy")
    with balancer.running():
        yield balancer


@pytest.fixture
def mirrors() -> Iterator[Callable[..., Mirror]]:
    """Start instances that mirror; they end with the test."""
    started: list[Mirror] = []

    def start(tls: ssl.SSLContext | None = None) -> Mirror:
        started.append(Mirror(tls))
        return started[-1]

    yield start
    for mirror in started:
        mirror.stop()
