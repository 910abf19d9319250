"""One fragment: a template of `cloud-config/` filled in and parsed, or the user's own part of cluster.yaml."""

from __future__ import annotations

import json
import re
import shlex
from functools import cache
from typing import TYPE_CHECKING, Any

import jinja2
import yaml

from coupler.assets import asset
from coupler.render.merge import Fragment

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from coupler.model import Extra

_TEXT = "tag:yaml.org,2002:str"
_PLAIN = re.compile(r"true|false|-?(0|[1-9][0-9]*)(\.[0-9]+)?")


def fragment(name: str, values: Mapping[str, Any]) -> Fragment:
    """Return the template `name` (as `common/pull`) filled in with `values`.

    Raises:
        jinja2.UndefinedError: the template names a value that is not there.
        yaml.YAMLError: the template does not become YAML.
    """
    text = environment().get_template(f"{name}.yaml.j2").render(values)
    return Fragment(origin_of(name), yaml.compose(text, yaml.CBaseLoader))


def origin_of(name: str) -> str:
    """Return how messages name the template `name`."""
    return f"cloud-config/{name}.yaml.j2"


def user_fragment(extra: Extra) -> Fragment:
    """Return the user's own cloud-config as a fragment."""
    return Fragment(extra.source.file, _node(extra.document))


@cache
def environment() -> jinja2.Environment:
    """Return the environment in which every template is rendered."""
    folder = asset("cloud-config")
    environment = jinja2.Environment(  # noqa: S701 - the output is YAML, quoted by the filter `yaml`
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"yaml": _yaml_quoted, "sh": shlex.quote, "flags": " \\\n          ".join}
    environment.globals |= {
        "script": lambda name: (folder / "scripts" / name).read_text(encoding="utf-8"),
        "json": lambda value: json.dumps(value, indent=2, sort_keys=True) + "\n",
        "lines": _lines,
    }
    return environment


def _yaml_quoted(value: object) -> str:
    """Return a scalar in double quotes: no reader takes it for anything but text."""
    return json.dumps(str(value), ensure_ascii=False)


def _lines(values: Iterable[str]) -> str:
    return "".join(f"{value}\n" for value in values)


def _node(value: object) -> yaml.Node:
    """Return the user's data as YAML nodes: numbers and true/false as they are, any other scalar in quotes."""
    if isinstance(value, dict):
        return yaml.MappingNode("tag:yaml.org,2002:map", [(_node(k), _node(v)) for k, v in value.items()])
    if isinstance(value, list | tuple):
        return yaml.SequenceNode("tag:yaml.org,2002:seq", [_node(item) for item in value])
    text = str(value)
    return yaml.ScalarNode(_TEXT, text, style=None if _PLAIN.fullmatch(text) else '"')
