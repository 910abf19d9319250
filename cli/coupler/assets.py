"""Where the templates, playbooks and roles are: in the wheel, or beside the source tree in an editable install."""

from __future__ import annotations

from pathlib import Path

from coupler.errors import CouplerError

_PACKAGE = Path(__file__).resolve().parent
_IN_WHEEL = _PACKAGE / "_data"
_IN_CHECKOUT = _PACKAGE.parent.parent


def asset(name: str) -> Path:
    """Return the folder `name` (`cloud-config`, `playbooks` or `roles`) of this installation.

    Raises:
        CouplerError: the installation lacks it.
    """
    for base in (_IN_WHEEL, _IN_CHECKOUT):
        if (base / name).is_dir():
            return base / name
    raise CouplerError(
        f"this installation of coupler has no folder '{name}'",
        why=f"neither {_IN_WHEEL} nor {_IN_CHECKOUT} holds it",
        next_step="install coupler again: pipx install --force coupler",
    )
