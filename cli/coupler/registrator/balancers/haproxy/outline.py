"""The shape of a desired state, made anew only when more than endpoints has changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coupler.registrator.balancers.haproxy.config import shape

if TYPE_CHECKING:
    from coupler.registrator.balancers.haproxy.config import Settings, Shape
    from coupler.registrator.balancers.haproxy.keyring import Keyring
    from coupler.registrator.model import Desired


@dataclass(frozen=True, slots=True)
class _Made:
    """A shape, and of what it was made: the same parts make the same shape."""

    parts: tuple[object, ...]
    size: int
    certificates: tuple[bool, str]
    shape: Shape

    def stands_for(self, desired: Desired, certificates: tuple[bool, str]) -> bool:
        """Whether `desired` differs in endpoints at most: its other parts are the same objects then."""
        parts = _parts(desired)
        same = all(new is old for new, old in zip(parts, self.parts, strict=True))
        told = any(parts)  # every empty tuple is the same object
        return same and told and len(desired.backends) == self.size and certificates == self.certificates


def _parts(desired: Desired) -> tuple[object, ...]:
    return desired.routes, desired.tcp_routes, desired.hosts


class Outliner:
    """Makes shapes. Equal ones are one object, so that others can tell by identity that nothing has changed."""

    def __init__(self, settings: Settings, keyring: Keyring) -> None:
        self._settings = settings
        self._keyring = keyring
        self._made: _Made | None = None

    async def take(self, desired: Desired) -> Shape:
        """Choose the certificates of `desired`, and return its shape."""
        await self._keyring.choose(desired.hosts)
        outline, certificates = self.peek(desired), self._certificates()
        if self._made is None or not self._made.stands_for(desired, certificates):
            self._made = _Made(_parts(desired), len(desired.backends), certificates, outline)
        return outline

    def peek(self, desired: Desired) -> Shape:
        """Return the shape of `desired` with the certificates that were chosen last."""
        made, (strict, reread) = self._made, self._certificates()
        if made is not None and made.stands_for(desired, (strict, reread)):
            return made.shape
        outline = shape(desired, self._settings, strict=strict, reread=reread)
        return made.shape if made is not None and made.shape == outline else outline

    def _certificates(self) -> tuple[bool, str]:
        return self._keyring.strict, self._keyring.reread
