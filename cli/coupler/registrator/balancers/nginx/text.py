"""The grammar of nginx's configuration: lines that know on whose behalf they stand, blocks, quotes and names."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from coupler.registrator.names import digest, safe_name

if TYPE_CHECKING:
    from collections.abc import Iterable

OWNER = "coupler-"
"""The owner mark: every upstream and every zone of ours begins with it, every variable with `coupler_`."""

DOLLAR = "${coupler_dollar}"
"""A dollar sign: nginx has no escape for it."""


class Subject(NamedTuple):
    """On whose behalf a line stands: it goes if nginx refuses the line. `harms` is what fails with it."""

    what: str = ""
    harms: tuple[str, ...] = ()


COMMON = Subject()


class Line(NamedTuple):
    """One line of a file."""

    text: str
    subject: Subject = COMMON


def lines(*texts: str, subject: Subject = COMMON) -> list[Line]:
    """Return these texts as lines."""
    return [Line(text, subject) for text in texts]


def block(head: str, body: Iterable[Line], subject: Subject = COMMON) -> list[Line]:
    """Return a block in braces."""
    inner = [Line(f"    {line.text}", line.subject) for line in body]
    return [Line(f"{head} {{", subject), *inner, Line("}", subject)]


def quoted(text: str) -> str:
    """Return `text` as one word, in which variables count."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def literal(text: str) -> str:
    """Return what stands for `text` inside a quoted word in which variables count."""
    return text.replace("$", DOLLAR)


def regex(text: str) -> str:
    """Return the word that matches exactly `text`, in a map: plain words there are compared without regard to case."""
    return quoted(f"~^{re.escape(text)}$")


def milliseconds(seconds: float) -> str:
    """Return a time as nginx reads it."""
    return f"{round(seconds * 1000) or 1}ms"


@lru_cache(maxsize=2**15)
def name_of(id_: str) -> str:
    """Return the name that a backend has in nginx, which does not tell upper from lower case in names."""
    name = safe_name(id_)
    lower = name.lower()
    return f"{OWNER}{name}" if name == lower else f"{OWNER}{lower}-{digest(id_)}"


def variable(kind: str, name: str) -> str:
    """Return a variable of ours about what has this name: another one for every name."""
    plain = re.sub(r"[^a-z0-9]", lambda found: f"_{ord(found[0]):02x}", name.removeprefix(OWNER))
    return f"$coupler_{kind}_{plain}"
