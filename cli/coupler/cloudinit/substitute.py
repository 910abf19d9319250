"""Substitution of `$private_ipv4` and its kind: on the text, before YAML is read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from coupler.cloudinit.golang import expand

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLES = {
    "$public_ipv4": "COREOS_PUBLIC_IPV4",
    "$private_ipv4": "COREOS_PRIVATE_IPV4",
    "$public_ipv6": "COREOS_PUBLIC_IPV6",
    "$private_ipv6": "COREOS_PRIVATE_IPV6",
}
"""What is replaced, and the environment variable that it is replaced with. Without a value it becomes empty."""


def addresses(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the non-empty address variables of a process environment."""
    return {name: environment[name] for name in VARIABLES.values() if environment.get(name)}


def substitute(text: str, values: Mapping[str, str]) -> str:
    r"""Return the text with every variable replaced and every escaped one (`\$private_ipv4`) unescaped.

    Two quirks of the real programs are kept: a variable directly after a replaced one stays, because the character
    before it was part of the last match; and `$1` or `${x}` in a value is read as a group of a regular expression.
    """
    for variable, name in VARIABLES.items():
        value = values.get(name, "")
        pattern = re.escape(variable)

        def replacement(match: re.Match[str], value: str = value) -> str:
            groups = {"0": match[0], "1": match[1]}
            return match[1] + expand(value, lambda group: groups.get(group, ""))

        text = re.sub(rf"([^\\]|\A){pattern}", replacement, text)
        text = text.replace(f"\\{variable}", variable)
    return text
