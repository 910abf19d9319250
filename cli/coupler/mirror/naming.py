"""How a person names a program and its version."""

from __future__ import annotations

from coupler import __version__
from coupler.errors import UsageError
from coupler.model.catalogue import PROGRAMS, REGISTRATOR, component_of, programs_of, source_of
from coupler.model.fields import VERSION
from coupler.model.problem import did_you_mean


def program_named(name: str) -> str:
    """Return the program of the catalogue that is meant: its name, or that of the archive that it comes in.

    Raises:
        UsageError: there is none, or the name stands for several files.
    """
    if name in PROGRAMS:
        return name
    components = sorted({component_of(program) for program in PROGRAMS})
    if name not in components:
        hint = did_you_mean(name, (*PROGRAMS, *components)) or f"the programs are {', '.join(PROGRAMS)}"
        raise UsageError(f"no node needs a program '{name}'", next_step=hint)
    parts = programs_of(name)
    if len({source_of(part, "1.0.0", "amd64").file for part in parts}) > 1:
        raise UsageError(f"{name} is several programs", next_step=f"add them one by one: {', '.join(parts)}")
    return parts[0]


def version_named(name: str, version: str | None) -> str:
    """Return the version of a program that is meant; the registrator's is ours.

    Raises:
        UsageError: none is given, or it is no version.
    """
    if version is None and name == REGISTRATOR:
        return __version__
    if version is None:
        raise UsageError(f"which version of {name} is it?", next_step="add --version, such as --version 1.36.0")
    if not VERSION.fullmatch(version):
        bare = version.removeprefix("v")
        hint = f"write {bare}" if bare != version else "write all three numbers: MAJOR.MINOR.PATCH"
        raise UsageError(f"'{version}' is not a version of three numbers", next_step=hint)
    return version
