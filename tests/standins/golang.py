"""Options as programs in Go take them, by its packages `flag` and (with `strict`) `pflag`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class UnknownOptionError(Exception):
    """The real program does not have it."""


def kinds(lines: Iterable[str]) -> dict[str, bool]:
    """Return of each option whether it takes a value, from lines `NAME` and `NAME KIND`."""
    return {name: bool(kind) for name, _, kind in (line.partition(" ") for line in lines)}


def parse(
    words: Sequence[str], known: Mapping[str, bool], *, anywhere: bool = False
) -> tuple[dict[str, str], list[str]]:
    """Return the options and the other words. Without `anywhere`, the first other word ends the options.

    Of an option that comes several times, the values are joined by commas. Raises UnknownOptionError.
    """
    options: dict[str, str] = {}
    rest: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if not word.startswith("-") or word == "-":
            rest.append(word)
            if not anywhere:
                break
            continue
        name, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
        if name not in known:
            raise UnknownOptionError(name)
        if not equals:
            value = left.pop(0) if known[name] and left else "true"
        options[name] = f"{options[name]},{value}" if name in options else value
    return options, [*rest, *left]


def with_environment(options: dict[str, str], prefix: str, known: Iterable[str]) -> dict[str, str]:
    """Return the options, and those that a variable gives: PREFIX_NAME_OF_OPTION."""
    variables = {name: os.environ.get(f"{prefix}_{name.upper().replace('-', '_')}", "") for name in known}
    return {name: value for name, value in variables.items() if value} | options


def say(message: str) -> None:
    """Log a line."""
    print(message, file=sys.stderr, flush=True)  # noqa: T201 - its log
