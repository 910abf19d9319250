"""Strategies for documents: sound ones, near-valid ones, and what only looks like one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from coupler.cloudinit.golang import to_text
from coupler.cloudinit.grammar import CLOUD_CONFIG, Kind, Type

_FIXTURES = Path(__file__).parents[2] / "fixtures" / "cloudinit" / "recorded"
_CORPUS = sorted(to_text(path.read_bytes()) for path in _FIXTURES.glob("*/user-data") if path.stat().st_size < 4096)

_SCALARS = st.one_of(
    st.sampled_from(
        [
            *("~", "true", "off", "yes", "0644", "0o644", "420", "1.5", ".inf", "1_000", "2024-02-30", "2024-01-01"),
            *("''", "'on'", "!!binary aGk=", "!!int x", "14:00", "&a", "*a"),
        ]
    ),
    st.text("abc/.$-_: #'\"\\%é\t", max_size=12),
)
_UNIT_TEXTS = [
    "[Service]\nExecStart=/bin/true\n",
    "[Unit]\nAfter=b.service user-config.target\nWants=b.service\n[Service]\nType=oneshot\nExecStart=/opt/bin/x\n",
    "[Service]\nExecStart=/bin/true\nExecReload=/bin/true\n[Install]\nWantedBy=multi-user.target\nAlias=c.service\n",
    "[Service]\nType=oneshot\nExecStart=/bin/false\nRestart=always\n",
    "[Timer]\nOnBootSec=1s\nUnit=a.service\n[Install]\nWantedBy=timers.target\n",
    "[Mount]\nWhat=tmpfs\nWhere=/mnt\nType=tmpfs\n",
    "[Socket]\nListenStream=/run/a.sock\n",
    "[Install]\nWantedBy=a@.service\nDefaultInstance=x\nAlso=b.service missing.service\n[Service]\nExecStart=\\\n",
    "[Service\nExecStart",
    "no section = 1\n[X-Own]\na\n[]\n[Service]\nExec=\n",
    "",
]
_GOOD: dict[str, list[str]] = {
    "path": ["/etc/x", "/etc/x.d/b", "/opt/bin/x", "etc/y", "/run/a/../b", "/home/core/a", "//srv//z/", "/etc/hosts"],
    "permissions": ["0644", "755", "0600"],
    "encoding": [""],
    "owner": ["root", "root:root", "core", "0:0", "nobody:nogroup", "x y", ""],
    "content": [*_UNIT_TEXTS[:3], "hello\n", ""],
    "command": ["start", "stop", "restart", "try-restart", ""],
    "name": [
        *("a.service", "b.service", "a@x.service", "docker.service", "x.network", "y.link", "sshd.socket"),
        *("locksmithd.service", "10-a.conf", "etcd2.service", "multi-user.target"),
    ],
    "reboot_strategy": ["off", "etcd-lock", "reboot", ""],
    "manage_etc_hosts": ["localhost", ""],
    "hostname": ["node-1", "node-1.example.org", "a_b", "", "x" * 70],
    "discovery": ["https://discovery.example.org/x"],
    "proxy": ["on", "off", ""],
    "shell": ["/bin/bash", "*", ""],
    "homedir": ["/home/x", ""],
    "passwd": ["$6$a$b", "*", ""],
    "etcd_password": [""],
    "gecos": ["A. User", "x,y,z", ""],
    "groups": ["docker", "sudo"],
    "window_start": ["Thu 04:00"],
    "window_length": ["1h"],
}
_BAD: dict[str, list[str]] = {
    "path": ["/etc/x/b", "/", "", "/etc", "/usr/bin/x", "a\0b"],
    "permissions": ["0o644", "4755", "420", "99", "x", ""],
    "encoding": ["base64", "gzip+base64", "b64", "rot13"],
    "content": [*_UNIT_TEXTS, "aGVsbG8=", "$private_ipv4", "-----BEGIN RSA PRIVATE KEY-----"],
    "command": ["reload", "enable", "reload-or-restart"],
    "name": [
        "a@.service",
        "a.timer",
        "mnt.mount",
        "a.socket",
        "core",
        "user-1",
        "../a.service",
        "a",
        "-a",
        "",
        "x.\0.link",
    ],
    "reboot_strategy": ["best-effort"],
    "manage_etc_hosts": ["true"],
    "hostname": ["-n"],
    "discovery": ["nowhere"],
    "shell": ["bash"],
    "homedir": ["x"],
    "passwd": ["plain", "a:b"],
    "window_start": ["24:61"],
}
_NEEDED = frozenset(("path", "name"))
_ODD = st.sampled_from(["true", "yes", "0644", "~", "", "1", "x", "2024-01-01", "'", "é", "\0", "a\nb", "*a", "&a x"])
_MUTANTS = [
    *("\t", " ", "  ", "-", "- ", ":", ": ", "#", "'", '"', "|", ">", "[", "]", "{", "}", ",", "&a ", "*a", "<<: *a"),
    *("!!int ", "!", "%", "\r", "\r\n", "\n", "\n\n", "---\n", "...", "\0", "\udcff", "\u2028", "\ufeff", "?", "? "),
    *("yes", "off", "0644", "null", "write-files", "drop-ins", "$private_ipv4", "$private_ipv4$public_ipv4", "\\"),
]


def _flow(wanted: Type) -> st.SearchStrategy[str]:
    """Return flow-style YAML for a type, now and then of another type."""
    if wanted.kind is Kind.STRUCT:
        pairs = [st.tuples(st.just(key.name), st.deferred(lambda key=key: _flow(key.type))) for key in wanted.keys]
        odd = st.tuples(st.sampled_from(["x", "drop-ins", "reboot-strategy", "<<", "~", "1"]), _SCALARS)
        section = st.lists(st.one_of(*pairs, odd), max_size=4)
        right = section.map(lambda found: "{" + ", ".join(f"{name}: {value}" for name, value in found) + "}")
    elif wanted.element is not None:
        right = st.lists(_flow(wanted.element), max_size=3).map(lambda found: f"[{', '.join(found)}]")
    else:
        right = _SCALARS
    return st.one_of(right, right, right, _SCALARS)


def _block(section: dict[str, str]) -> str:
    return "#cloud-config\n" + "".join(f"{name}: {value}\n" for name, value in section.items())


def _typed(wanted: Type, *, bad: bool, name: str = "") -> st.SearchStrategy[Any]:
    """Return values of a type, such as people write for the key `name`; with `bad`, also such as they should not."""
    if wanted.kind is Kind.STRUCT:
        fields = {
            key.name: st.deferred(lambda key=key: _typed(key.type, bad=bad, name=key.name)) for key in wanted.keys
        }
        needed = {} if bad else {key: fields.pop(key) for key in _NEEDED & fields.keys()}
        return st.fixed_dictionaries(needed, optional=fields)
    if wanted.element is not None:
        return st.lists(_typed(wanted.element, bad=bad, name=name), max_size=3)
    if wanted.kind is Kind.STRING:
        words = [*_GOOD.get(name, ()), *(_BAD.get(name, ()) if bad else ())]
        return st.sampled_from(words) if words else st.text("ab/.: \n", max_size=8)
    kinds = {Kind.BOOL: st.booleans(), Kind.INT: st.integers(-(2**63), 2**63 - 1), Kind.FLOAT: st.floats(0, 1e9)}
    return kinds[wanted.kind]


def _dumped(value: Any, flow: bool | None) -> str:
    return "#cloud-config\n" + yaml.safe_dump(value, default_flow_style=flow, sort_keys=False, allow_unicode=True)


def _mutated(text: str, changes: list[tuple[float, int, str]]) -> str:
    """Return a text with each change made: at a fraction of it, some characters give way to others."""
    for place, removed, added in changes:
        start = len("#cloud-config\n") + int(place * max(0, len(text) - len("#cloud-config\n")))
        text = text[:start] + added + text[start + removed :]
    return text


def _shuffled(text: str, moves: list[tuple[float, float]]) -> str:
    """Return a text with some of its lines standing in another place, a second time."""
    lines = text.split("\n")
    for source, target in moves:
        lines.insert(1 + int(target * (len(lines) - 1)), lines[int(source * (len(lines) - 1))])
    return "\n".join(lines)


_FRACTION = st.floats(0, 1)
_CHANGES = st.lists(
    st.tuples(_FRACTION, st.integers(0, 3), st.one_of(st.sampled_from(_MUTANTS), _ODD)), min_size=0, max_size=3
)
_MOVES = st.lists(st.tuples(_FRACTION, _FRACTION), max_size=2)

_STYLES = st.sampled_from([None, False, True])

LIKELY = st.builds(_dumped, _typed(CLOUD_CONFIG, bad=False), _STYLES)
"""Documents with values that can be right, written in block and in flow style."""

TYPED = st.builds(_dumped, _typed(CLOUD_CONFIG, bad=True), _STYLES)
"""Documents in which every value has the right type."""

_JSON = _typed(CLOUD_CONFIG, bad=True).map(lambda value: f"#cloud-config\n{json.dumps(value)}\n")
_NEAR = st.builds(_mutated, st.builds(_shuffled, st.one_of(st.sampled_from(_CORPUS), TYPED), _MOVES), _CHANGES)

DOCUMENTS = st.one_of(
    TYPED,
    _NEAR,
    _NEAR,
    _JSON,
    st.fixed_dictionaries({}, optional={key.name: _flow(key.type) for key in CLOUD_CONFIG.keys}).map(_block),
    st.text(max_size=60).map(lambda text: f"#cloud-config\n{text}"),
    st.binary(max_size=60).map(lambda data: to_text(b"#cloud-config\n" + data)),
    st.binary(max_size=60).map(to_text),
)
"""Whatever may come, most of it not far from a cloud-config."""
