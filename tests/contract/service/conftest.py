"""Fixtures: a HAProxy, an etcd and a registrator between them, gone after the test."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.contract.haproxy.world import Balancer
from tests.contract.service.world import Registrator

from coupler.registrator.model import Desired

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.contract.etcd import Etcd
    from tests.contract.traffic import App


@pytest.fixture
def haproxy(tmp_path: Path, apps: Callable[..., App]) -> Iterator[Balancer]:
    """A HAProxy that runs with our first, empty file beside the user's own."""
    balancer = Balancer(tmp_path, (apps("theirs-0"), apps("theirs-1")))
    balancer.write_base()
    asyncio.run(balancer.adapter().prepare(Desired()))
    balancer.start()
    yield balancer
    balancer.kill()


@pytest.fixture
def make(tmp_path: Path, etcd: Etcd, haproxy: Balancer) -> Iterator[Callable[[str], Registrator]]:
    """Make a registrator between the etcd and the HAProxy; it is not started yet."""
    made: list[Registrator] = []

    def one(name: str) -> Registrator:
        balancer = {
            "socket": str(haproxy.socket),
            "config": str(haproxy.config),
            "base": [str(haproxy.base)],
            "http": [f"127.0.0.1:{haproxy.port}"],
            "tcp-address": "127.0.0.1",
            "reload-interval": 0.1,
        }
        source = {"etcd": {"endpoints": [etcd.url]}, "grace": 1.0}
        settings = {"sources": {"announcements": source}, "balancers": {"haproxy": balancer}}
        made.append(Registrator(tmp_path / name, settings))
        return made[-1]

    yield one
    for registrator in made:
        registrator.kill()


@pytest.fixture
def registrator(make: Callable[[str], Registrator]) -> Registrator:
    """The one registrator that most tests need."""
    return make("registrator")
