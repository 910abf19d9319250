"""Which keys of cluster.yaml shaped each entry of the document.

The templates are rendered with a watched cluster (see `recording`). Jinja yields a text piece by piece; what was read
before a piece belongs to the line where that piece begins. What an `if` or a `for` read belongs to every line inside
it; of a branch that was left out, to the lines around the gap. An entry has what its lines have. Where that cannot be
told exactly it is more, never less.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import nodes as syntax
from jinja2.visitor import NodeTransformer

from coupler.render.context import derivations
from coupler.render.document import fragment_names
from coupler.render.fragments import environment, origin_of
from coupler.render.merge import IDENTITY
from coupler.render.recording import Once, Read, Recorder, watched

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from coupler.model import Cluster
    from coupler.model.source import KeyPath

EntryPath = tuple[str, ...]
"""The keys that lead to an entry; in a list, what names the entry there: `("write_files", "/etc/hosts")`."""


@dataclass(frozen=True)
class Origin:
    """Where an entry of the document comes from: the template, and the keys that it read for this entry.

    For an entry of the user's own fragment, `fragment` is that file and `reads` are paths in it.
    """

    path: EntryPath
    fragment: str
    reads: frozenset[Read]
    own: bool = False


def provenance(cluster: Cluster) -> tuple[Origin, ...]:
    """Return the origin of every entry of the document of `cluster`, in the document's order."""
    recorder = Recorder()
    watching = watched(cluster, recorder)
    derived, _ = recorder.capture(lambda: derivations(watching))
    values = {
        "cluster": watching,
        **{
            name: _Group(recorder, value) if isinstance(value, dict) else Once(recorder, value)
            for name, value in derived.items()
        },
    }
    once = frozenset(name for name, value in values.items() if isinstance(value, Once))
    origins: list[Origin] = []
    recorder.take()
    for name in fragment_names(watching):
        chosen = recorder.take()
        text, lines = _rendered(name, values, once, recorder)
        origins += _origins(text, lines, origin_of(name), chosen)
    return (*origins, *_own(cluster))


def _own(cluster: Cluster) -> Iterator[Origin]:
    """Yield the entries of the user's own fragment."""
    if not cluster.extra:
        return
    extra = cluster.extra
    for path, where in _data_entries(extra.document, (), ()):
        yield Origin(path, extra.source.file, frozenset({Read((*extra.base, *where))}), own=True)


def _data_entries(value: Any, path: EntryPath, where: KeyPath) -> Iterator[tuple[EntryPath, KeyPath]]:
    identity = IDENTITY.get(path[-1]) if path else None
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _data_entries(item, (*path, key), (*where, key))
    elif isinstance(value, list) and identity:
        for index, item in enumerate(value):
            name = item.get(identity) if isinstance(item, dict) else None
            yield (*path, str(name)), (*where, index)
    else:
        yield path, where


class _Group:
    """Derived values that belong together: `etcd.flags` in a template."""

    def __init__(self, recorder: Recorder, values: Mapping[str, Any]) -> None:
        self._values = {name: Once(recorder, derive) for name, derive in values.items()}

    def __getattr__(self, name: str) -> Any:
        if name not in self._values:
            raise AttributeError(name)
        return self._values[name]()


class _Lines:
    """Which keys each line of a text depends on, noted while the text is made. Lines count from 0."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._scopes: list[set[Read]] = []
        self._here = 0
        self.reads: dict[int, set[Read]] = {}
        self.everywhere: set[Read] = set()

    def begin(self) -> None:
        """An `if` or `for` begins."""
        self._scopes.append(set())

    def inside(self) -> None:
        """One of its branches, or rounds, begins: it depends on what was read to get there."""
        self._scopes[-1] |= self._recorder.take()

    def end(self) -> None:
        """It ends. What was read for a branch that was left out also belongs to what stands before the gap."""
        self._scopes.pop()
        self._note(max(self._here - 1, 0), self._recorder.pending)
        self._note(self._here, self._recorder.pending)

    def piece(self, text: str) -> None:
        """Write a piece of the text."""
        self._note(self._here, self._recorder.take())
        last = self._here + text.count("\n")
        within: set[Read] = set().union(*self._scopes)
        if within:
            for line in range(self._here, last + (not text.endswith("\n"))):
                self._note(line, within)
        self._here = last

    def finish(self) -> None:
        """The text ends."""
        self._note(self._here, self._recorder.take())

    def _note(self, line: int, reads: set[Read]) -> None:
        if reads:
            self.reads.setdefault(line, set()).update(reads)


class _Instrument(NodeTransformer):
    """Adds to a template's syntax tree what tells `_Lines` where an `if` or a `for` begins, branches and ends.

    A name in `once` becomes a call: its value is computed where it is used.
    """

    def __init__(self, once: frozenset[str]) -> None:
        self._once = once

    def visit_Name(self, node: syntax.Name) -> syntax.Node:  # noqa: N802 - the visitor's own spelling
        """Call what is computed once."""
        if node.ctx != "load" or node.name not in self._once:
            return node
        return syntax.Call(node, [], [], None, None, lineno=node.lineno)

    def visit_If(self, node: syntax.If) -> list[syntax.Node]:  # noqa: N802
        """Mark a choice."""
        self._choice(node)
        return [_mark("begin", node), node, _mark("end", node)]

    def visit_For(self, node: syntax.For) -> list[syntax.Node]:  # noqa: N802
        """Mark a loop."""
        self.generic_visit(node)
        self._branches(node)
        return [_mark("begin", node), node, _mark("end", node)]

    def _choice(self, node: syntax.If) -> None:
        inner, node.elif_ = node.elif_, []
        self.generic_visit(node)
        for branch in inner:
            self._choice(branch)
        node.elif_ = inner
        self._branches(node)

    def _branches(self, node: syntax.If | syntax.For) -> None:
        node.body = [_mark("inside", node), *node.body]
        if node.else_:
            node.else_ = [_mark("inside", node), *node.else_]


_MARKS = "lines_of_the_document"
_UNDERSTOOD = (syntax.Output, syntax.If, syntax.For, syntax.ExprStmt)


def _mark(what: str, node: syntax.Node) -> syntax.Node:
    target = syntax.Getattr(syntax.Name(_MARKS, "load", lineno=node.lineno), what, "load", lineno=node.lineno)
    return syntax.ExprStmt(syntax.Call(target, [], [], None, None, lineno=node.lineno), lineno=node.lineno)


def _rendered(name: str, values: Mapping[str, Any], once: frozenset[str], recorder: Recorder) -> tuple[str, _Lines]:
    """Return a template's text, and which keys its lines depend on."""
    templates = environment()
    file = f"{name}.yaml.j2"
    source = templates.get_template(file).filename
    text, _, _ = templates.loader.get_source(templates, file)  # type: ignore[union-attr]
    tree = templates.parse(text, file, source)
    plain = all(isinstance(node, _UNDERSTOOD) for node in tree.find_all(syntax.Stmt))
    code = templates.compile(_Instrument(once).visit(tree), file, source)
    template = templates.template_class.from_code(templates, code, templates.make_globals(None))
    lines = _Lines(recorder)
    pieces = []
    seen: set[Read] = set()
    for piece in template.generate({**values, _MARKS: lines}):
        seen |= recorder.pending
        lines.piece(piece)
        pieces.append(piece)
    lines.finish()
    if not plain:  # a macro, an assignment, an include: who uses what it read cannot be told by its place
        lines.everywhere = seen.union(*lines.reads.values())
    return "".join(pieces), lines


def _origins(text: str, lines: _Lines, fragment: str, chosen: set[Read]) -> Iterator[Origin]:
    """Yield the origins of the entries of a rendered fragment; `chosen` is what was read to choose it."""
    root = yaml.compose(text, yaml.CBaseLoader)
    found = list(_entries(root, (), root.start_mark.line)) if isinstance(root, yaml.MappingNode) else []
    bounds = [start for _, start in found] + [text.count("\n") + 2]
    common = chosen | lines.everywhere
    for line, reads in lines.reads.items():
        if line < bounds[0]:
            common |= reads
    for (path, _), (start, end) in zip(found, pairwise(bounds), strict=True):
        own = (reads for line, reads in lines.reads.items() if start <= line < end)
        yield Origin(path, fragment, frozenset(common.union(*own)))


def _entries(node: yaml.Node, path: EntryPath, line: int) -> Iterator[tuple[EntryPath, int]]:
    """Yield the path of every entry below a node that begins at `line`, with the line in which the entry begins.

    The first entry below a key begins where the key does.
    """
    identity = IDENTITY.get(path[-1]) if path else None
    if isinstance(node, yaml.MappingNode):
        for number, (key, value) in enumerate(node.value):
            yield from _entries(value, (*path, key.value), key.start_mark.line if number else line)
    elif isinstance(node, yaml.SequenceNode) and identity:
        for number, item in enumerate(node.value):
            names = [value.value for key, value in item.value if key.value == identity]
            yield (*path, *names), item.start_mark.line if number else line
    else:
        yield path, line
