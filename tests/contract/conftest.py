"""Fixtures for everything that balances: instances, and an etcd, gone after the test."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from tests.contract.etcd import Etcd, EtcdCluster
from tests.contract.traffic import App

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


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    """A real etcd with an empty store."""
    folder = tmp_path / "etcd"
    folder.mkdir()
    server = Etcd(folder, "--enable-v2")
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def etcd_cluster(tmp_path: Path) -> Iterator[EtcdCluster]:
    """Three members of one real etcd."""
    folder = tmp_path / "etcd"
    folder.mkdir()
    cluster = EtcdCluster(folder, 3)
    try:
        cluster.start_all()
        yield cluster
    finally:
        cluster.stop_all()
