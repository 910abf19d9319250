"""Between a reflector and what is kept of its objects: what a list or an event changes is collected."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coupler.registrator.sources.kubernetes.objects import key_of, uid_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from coupler.registrator.sources.kubernetes.objects import Json, Key
    from coupler.registrator.sources.kubernetes.plan import Group

    Effect = tuple[frozenset[Group], bool]
    """Groups whose endpoints may have changed, and whether anything else may have."""


@dataclass(slots=True)
class Told:
    """What has changed since it was looked at last."""

    groups: set[Group] = field(default_factory=set)
    anew: bool = False
    since: float | None = None
    relisted: bool = False
    was_relisted: bool = False

    @property
    def anything(self) -> bool:
        """Whether there is anything to look at."""
        return bool(self.groups) or self.anew or self.relisted

    def tell(self, groups: frozenset[Group], *, anew: bool, since: float | None) -> None:
        """Add a change. Of several, the earliest one's time counts."""
        self.groups |= groups
        self.anew = self.anew or anew
        if since is not None:
            self.since = since if self.since is None else min(self.since, since)

    def take(self) -> tuple[frozenset[Group], bool, float | None]:
        """Return what there is, and begin anew."""
        found = frozenset(self.groups), self.anew, self.since
        self.groups, self.anew, self.since = set(), False, None
        self.was_relisted, self.relisted = self.relisted, False
        return found


class Feed:
    """A reflector's listener for objects that are kept by name, of one namespace or of all."""

    def __init__(
        self,
        told: Told,
        wake: Callable[[], None],
        namespace: str | None,
        keys: Callable[[], set[Key]],
        put: Callable[[Json], Effect],
        drop: Callable[[Key, str | None], Effect],
        since: Callable[[Json], float | None],
    ) -> None:
        self._told, self._wake, self._namespace = told, wake, namespace
        self._keys, self._put, self._drop, self._since = keys, put, drop, since

    def replaced(self, objects: Iterable[Json]) -> None:
        """Take a whole list: what is not in it is gone."""
        listed = set()
        for item in objects:
            listed.add(key_of(item))
            self._effect(self._put(item))
        mine = {key for key in self._keys() if self._namespace in {None, key[0]}}
        for key in mine - listed:
            self._effect(self._drop(key, None))
        self._told.relisted = True
        self._wake()

    def changed(self, item: Json) -> None:
        """Take an object that was added or modified."""
        self._effect(self._put(item), self._since(item))
        self._wake()

    def deleted(self, item: Json) -> None:
        """Let go of an object, if it is still that one."""
        self._effect(self._drop(key_of(item), uid_of(item)))
        self._wake()

    def _effect(self, effect: Effect, since: float | None = None) -> None:
        groups, anew = effect
        if groups or anew:
            self._told.tell(groups, anew=anew, since=since)
