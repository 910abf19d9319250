"""The explanations of codes: why a finding matters, what the real program does, how to mend it, an example.

They are data, in explanations.toml beside this module, and not loaded where documents are applied.
"""

from __future__ import annotations

import base64
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from textwrap import fill

from coupler.cloudinit.grammar import Lineage

_WIDTH, _INDENT = 100, " " * 9

FILLER = "<16 KiB of text>"
"""What stands for a long text in an example."""


@dataclass(frozen=True)
class Explanation:
    """What is to be said of a code. `before` and `after` are documents, in base64 where they are no text."""

    code: str
    title: str
    why: str
    program: str
    mend: str
    before: str
    after: str
    lineage: Lineage = Lineage.FLATCAR
    base64: bool = False

    def examples(self) -> tuple[bytes, bytes]:
        """Return the documents before and after, as a data source would have them."""
        return self._data(self.before), self._data(self.after)

    def _data(self, example: str) -> bytes:
        if self.base64:
            return base64.b64decode(example)
        return example.replace(FILLER, "x" * 16_384).encode()

    def text(self) -> str:
        """Return the explanation as a person reads it."""
        said = {"why": self.why, "program": self.program, "mend": self.mend}
        lines = [f"{self.code}: {self.title}", ""]
        lines += [fill(f"{name + ':':<9}{text}", _WIDTH, subsequent_indent=_INDENT) for name, text in said.items()]
        for name, example in (("before", self.before), ("after", self.after)):
            lines += ["", f"{name}:", *(f"    {line}".rstrip() for line in _shown(example))]
        return "\n".join(lines)


def _shown(example: str) -> list[str]:
    """Return the lines of an example, what cannot be seen made visible."""
    lines = example.removesuffix("\n").split("\n")
    visible = [line.replace("\r", "␍").replace("\t", "→") for line in lines]
    return visible if example.endswith("\n") else [*visible[:-1], f"{visible[-1]}␄"]


@cache
def explanations() -> dict[str, Explanation]:
    """Return every explanation by its code."""
    table = tomllib.loads(Path(__file__).with_name("explanations.toml").read_text(encoding="utf-8"))
    return {code: _explanation(code, entry) for code, entry in table.items()}


def _explanation(code: str, entry: dict[str, str]) -> Explanation:
    lineage = Lineage(entry.pop("lineage", Lineage.FLATCAR))
    return Explanation(code, lineage=lineage, base64=bool(entry.pop("base64", False)), **entry)
