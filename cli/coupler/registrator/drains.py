"""What an operator takes out of service: endpoints that drain whatever their sources say."""

from __future__ import annotations

import os
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import orjson

from coupler.errors import CouplerError
from coupler.registrator.model import Backend, Desired, Endpoint, State

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class DrainsError(CouplerError):
    """The list of drains cannot be read or written."""


class Drains:
    """Names, each an address (every endpoint there), `address:port` or a uid; kept in a file if there is one."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._names: frozenset[str] = self._read()

    @property
    def names(self) -> frozenset[str]:
        """What drains."""
        return self._names

    def add(self, name: str) -> None:
        """Let `name` drain, and remember it."""
        self._write(self._names | {name})

    def remove(self, name: str) -> None:
        """Let `name` serve again."""
        self._write(self._names - {name})

    def over(self, desired: Desired, ids: Iterable[str] | None = None) -> Desired:
        """Return `desired` with the drains applied to these backends; None means all."""
        if not self._names:
            return desired
        backends = dict(desired.backends)
        for id_ in backends if ids is None else ids:
            if id_ in backends:
                backends[id_] = self._drained(backends[id_])
        return replace(desired, backends=MappingProxyType(backends))

    def _drained(self, backend: Backend) -> Backend:
        if not any(self._names_one(endpoint) for endpoint in backend.endpoints):
            return backend
        endpoints = (
            replace(endpoint, state=State.DRAIN) if self._names_one(endpoint) else endpoint
            for endpoint in backend.endpoints
        )
        return replace(backend, endpoints=tuple(endpoints))

    def _names_one(self, endpoint: Endpoint) -> bool:
        if endpoint.state is not State.READY:
            return False
        address = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
        return not self._names.isdisjoint((endpoint.uid, endpoint.address, f"{address}:{endpoint.port}"))

    def _read(self) -> frozenset[str]:
        if self._file is None or not self._file.exists():
            return frozenset()
        try:
            names = orjson.loads(self._file.read_bytes())
            return frozenset(str(name) for name in names)
        except (OSError, ValueError, TypeError) as error:
            raise DrainsError(f"{self._file} cannot be read", str(error), "remove it: nothing drains then") from error

    def _write(self, names: frozenset[str]) -> None:
        if self._file is not None:
            scratch = self._file.with_name(f".{self._file.name}.{os.getpid()}")
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                scratch.write_bytes(orjson.dumps(sorted(names)))
                scratch.replace(self._file)
            except OSError as error:
                raise DrainsError(f"{self._file} cannot be written", str(error)) from error
        self._names = names
