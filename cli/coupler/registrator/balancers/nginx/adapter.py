"""nginx as a balancer: every move is a text, tried first, and a reload that is waited for.

A reload is over when nginx answers with the new generation and no old worker takes connections any more. Old workers
finish what they have: how long they may is the user's `worker_shutdown_timeout`. Because each move writes everything,
nothing is moved until everything may be: without leave to remove, nginx keeps what it has.
"""

from __future__ import annotations

import asyncio
import difflib
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from coupler.registrator.balancers import Applied, BalancerError
from coupler.registrator.balancers.nginx import process
from coupler.registrator.balancers.nginx.config import certificate_file, impossible, listening, render
from coupler.registrator.balancers.nginx.files import Files
from coupler.registrator.balancers.system import taken

if TYPE_CHECKING:
    from collections.abc import Set

    from coupler.registrator.balancers.nginx.config import NginxSettings, Rendered, Texts
    from coupler.registrator.balancers.nginx.files import Refusal
    from coupler.registrator.balancers.nginx.text import Subject
    from coupler.registrator.model import Desired

WHOLE = "(configuration)"
"""What fails, or waits, where it is no single backend."""

_POLL_SECONDS = 0.005


class Nginx:
    """One nginx, local to this registrator. `patience` is how long a reload may take, in seconds.

    nginx itself tries for 2.5 s to get a port that another program has before it gives a reload up.
    """

    name = "nginx"
    settle = 0.1
    shared = False

    def __init__(self, settings: NginxSettings, *, patience: float = 10.0) -> None:
        self._settings = settings
        self._files = Files(settings)
        self._patience = patience
        self._one_at_a_time = asyncio.Lock()
        self._refused: dict[Subject, tuple[str, str]] = {}  # subject → its lines, and what nginx says of them
        self._refused_hosts: dict[str, tuple[str, str]] = {}  # host → file of its certificate, likewise
        self.reloads = 0

    async def prepare(self, desired: Desired) -> None:
        """Write our files where there are none, so that an nginx that includes them can start."""
        if not (self._settings.http.exists() and self._settings.stream.exists()):
            async with self._one_at_a_time:
                await self._place(desired, *await asyncio.to_thread(self._wanted, desired))

    async def identity(self) -> str | None:
        """Return pid and start of the master."""
        pid = process.master(self._settings)
        return None if pid is None else f"{pid}@{process.started(pid)}"

    async def apply(self, desired: Desired, backends: Set[str] | None, *, remove: bool) -> Applied:
        """Move nginx to `desired`, all of it; None also tries again what nginx refused before."""
        async with self._one_at_a_time:
            if backends is None:
                self._refused, self._refused_hosts = {}, {}
            rendered, failed = await asyncio.to_thread(self._wanted, desired)
            texts = rendered.texts()
            if await self._runs(texts):
                return Applied(0, failed)
            if not remove:
                return Applied(0, failed, frozenset((WHOLE,)))
            before = self._files.current()
            texts, failed = await self._place(desired, rendered, failed)
            pid = process.master(self._settings)
            if pid is None:
                raise BalancerError(
                    "nginx is not running",
                    f"{self._settings.pid_file} names no process of it",
                    "start it: our files are written",
                )
            if await self._runs(texts):
                return Applied(0, failed)
            try:
                await self._reload(pid, texts)
            except BalancerError as error:
                await asyncio.to_thread(self._files.restore, before)
                return Applied(0, failed | {WHOLE: error.summary})
            await asyncio.to_thread(self._files.collect)
            self.reloads += 1
            return Applied(1, failed)

    async def drift(self, desired: Desired) -> frozenset[str]:
        """Return whether nginx, or one of our files, is not as desired: all of them go together."""
        rendered, _ = await asyncio.to_thread(self._wanted, desired)
        return frozenset() if await self._runs(rendered.texts()) else frozenset((WHOLE,))

    async def plan(self, desired: Desired) -> list[str]:
        """Return the differences of our files, and the reload if there is one."""
        rendered, failed = await asyncio.to_thread(self._wanted, desired)
        texts = rendered.texts()
        lines = [f"left out of backend {name}: {why}" for name, why in failed.items()]
        for path, old, new in zip(
            (self._settings.http, self._settings.stream),
            self._files.current(),
            (texts.http, texts.stream),
            strict=True,
        ):
            pieces = old.splitlines(), new.splitlines(), str(path), f"{path} (new)"
            lines += difflib.unified_diff(*pieces, n=1, lineterm="")
        held = self._files.certificates()
        lines += [f"write {self._settings.certificates / name}" for name in sorted(texts.certificates.keys() - held)]
        return lines if await self._runs(texts) else [*lines, "reload nginx"]

    async def persist(self, desired: Desired) -> None:
        """Do nothing: what nginx runs is what the next start reads."""

    async def close(self) -> None:
        """Do nothing: nginx goes on."""

    async def _runs(self, texts: Texts) -> bool:
        return self._files.holds(texts) and await process.generation(self._settings) == texts.generation

    def _wanted(self, desired: Desired) -> tuple[Rendered, dict[str, str]]:
        """Return the files for `desired`, without what nginx refused before, and by name what was left out and why."""
        desired, failed = self._servable(desired)
        rendered = render(desired, self._settings)
        left_out = {subject for subject, (text, _) in self._refused.items() if rendered.of(subject) == text}
        for subject in left_out:
            failed |= dict.fromkeys(subject.harms, self._refused[subject][1])
        return rendered.without(left_out), failed

    def _servable(self, desired: Desired) -> tuple[Desired, dict[str, str]]:
        """Leave out ports that another program has, and certificates that nginx refused."""
        failed = impossible(desired)
        included = self._files.included(self._settings.stream)
        held = listening(self._files.current()[1]) if process.master(self._settings) else frozenset()
        routes = []
        for route in desired.tcp_routes:
            why = None if route.port in held else taken(self._settings.tcp_address, route.port)
            if not included:
                why = f"{self._settings.main} does not include {self._settings.stream}"
            if why is None:
                routes.append(route)
            else:
                failed[route.backend] = why
        hosts = []
        for host in desired.hosts:
            file, why = self._refused_hosts.get(host.name, ("", ""))
            if host.certificate and certificate_file(host.certificate) == file:
                failed[f"host {host.name or '(any)'}"] = why
                hosts.append(replace(host, certificate=None))
            else:
                hosts.append(host)
        return replace(desired, tcp_routes=tuple(routes), hosts=tuple(hosts)), failed

    async def _place(
        self, desired: Desired, rendered: Rendered, failed: dict[str, str]
    ) -> tuple[Texts, dict[str, str]]:
        """Put the files for `desired` in place, without what nginx refuses. Raises BalancerError if that is all."""
        if not self._files.included(self._settings.http):
            raise BalancerError(
                f"{self._settings.main} does not include {self._settings.http}",
                "nginx would not see what is written there",
                f"put `include {self._settings.http};` into its http {{}}",
            )
        while True:
            texts = rendered.texts()
            refusal = None if self._files.holds(texts) else await self._files.refusal(texts)
            if refusal is None:
                await asyncio.to_thread(self._files.write, texts)
                return texts, failed
            if not self._blame(refusal, desired, rendered, texts):
                raise BalancerError("nginx refuses the configuration; the one before it stays", refusal.message)
            rendered, failed = await asyncio.to_thread(self._wanted, desired)

    def _blame(self, refusal: Refusal, desired: Desired, rendered: Rendered, texts: Texts) -> bool:
        """Note what is to be left out because of a refusal; return whether anything was found."""
        found = False
        for host in desired.hosts:
            file = certificate_file(host.certificate) if host.certificate else None
            if file and file in texts.certificates and file in refusal.message:
                self._refused_hosts[host.name] = file, refusal.message
                found = True
        subject = None if found else rendered.blamed(refusal.http_line, refusal.stream_line)
        if subject is not None:
            self._refused[subject] = rendered.of(subject), refusal.message
        return found or subject is not None

    async def _reload(self, pid: int, texts: Texts) -> None:
        deadline = time.monotonic() + self._patience
        old = await asyncio.to_thread(process.workers, pid)
        process.tell_to_reload(pid)
        while await process.generation(self._settings) != texts.generation:
            await self._wait(deadline, "nginx was told to reload, and did not", "its own log says why")
        while any(process.serves(worker) for worker in old):
            await self._wait(deadline, "nginx reloaded, and its old workers go on", "they still take connections")

    @staticmethod
    async def _wait(deadline: float, otherwise: str, why: str) -> None:
        if time.monotonic() > deadline:
            raise BalancerError(otherwise, why)
        await asyncio.sleep(_POLL_SECONDS)
