"""How a value says what is wrong with it: a code, a sentence and, where one can be computed, a way out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from pydantic_core import PydanticCustomError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import LiteralString


MAX_QUOTED = 80
"""Characters of a value that a message repeats."""


def problem(code: LiteralString, message: str, hint: str | None = None) -> PydanticCustomError:
    """Return the error that a validator raises; `code` is kebab-case and becomes the finding's code."""
    return PydanticCustomError(code, "{message}", {"message": message, "hint": hint})


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Return 'did you mean `x`?' for the known word nearest to `word`, or None when none is near."""
    words = list(known)
    folded = {candidate.lower(): candidate for candidate in words}
    near = get_close_matches(word.lower().replace("-", "_"), folded, n=1, cutoff=0.6) or get_close_matches(
        word.lower(), folded, n=1, cutoff=0.6
    )
    return f"did you mean `{folded[near[0]]}`?" if near else None


def listed(words: Iterable[str]) -> str:
    """Return the words as English: `a`, `b` or `c`."""
    quoted = [f"`{word}`" for word in words]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"


def kind_of(value: object) -> str:
    """Return what a value of a YAML document is, in the words of this project's messages."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return f"`{value[:MAX_QUOTED]}…`" if len(value) > MAX_QUOTED else f"`{value}`"
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, Sequence) else type(value).__name__
