"""Fixtures: instances, a HAProxy beside a foreign site, an etcd; all of them on loopback, and gone after the test."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from tests.contract.haproxy.world import App, Balancer, Etcd

from coupler.registrator.model import Desired

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def apps() -> Iterator[Callable[..., App]]:
    """Start instances; they end with the test."""
    started: list[App] = []

    def start(name: str, port: int = 0) -> App:
        started.append(App(name, port))
        return started[-1]

    yield start
    for app in started:
        with contextlib.suppress(OSError):
            app.stop()


@pytest.fixture(params=["spawn"])
def haproxy(request: pytest.FixtureRequest, tmp_path: Path, apps: Callable[..., App]) -> Iterator[Balancer]:
    """A HAProxy that runs with our first, empty file beside the user's own."""
    balancer = Balancer(tmp_path, (apps("theirs-0"), apps("theirs-1")), master=request.param == "master")
    balancer.write_base()
    asyncio.run(balancer.adapter().prepare(Desired()))
    balancer.start()
    yield balancer
    balancer.kill()


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    """A real etcd with an empty store."""
    folder = tmp_path / "etcd"
    folder.mkdir()
    server = Etcd(folder)
    server.start()
    yield server
    server.stop()
