"""Rules about the host's name, users and keys: what hostnamectl, useradd and sshd will say to them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from coupler.cloudinit.grammar import Lineage
from coupler.cloudinit.parse import NodeKind
from coupler.cloudinit.plan import CORE
from coupler.cloudinit.substitute import VARIABLES
from coupler.errors import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coupler.cloudinit.parse import Node
    from coupler.cloudinit.subject import Subject
    from coupler.errors import Finding

_HOSTNAME = re.compile(r"(?=.{1,63}\Z)(?!-)[A-Za-z0-9-]+(?<!-)(\.(?!-)[A-Za-z0-9-]+(?<!-))*")
_USER = re.compile(r"(?![-+~])[^:,/\s\0]{1,32}")
_FIELDS = {
    "passwd": re.compile(r"[^:\n\0]*"),
    "gecos": re.compile(r"[^:\n\0]*"),
    "homedir": re.compile(r"(/[^:\n\0]*)?"),
    "shell": re.compile(r"(/[^:\n\0]*|\*)?"),
}
"""What useradd takes for a field of /etc/passwd or /etc/shadow."""

_LATER = frozenset(
    (
        *("name", "passwd", "ssh_authorized_keys"),
        *("coreos_ssh_import_github", "coreos_ssh_import_github_users", "coreos_ssh_import_url"),
    )
)
"""What a user gets who is there already."""

_KEY = re.compile(r"(^|\s)(ssh-(rsa|dss|ed25519)|ecdsa-sha2-\S+|sk-(ssh|ecdsa)-\S+)(-cert-v01@openssh\.com)?\s+AAAA")


def _hostname(subject: Subject) -> Iterator[Finding]:
    node = subject.outline.at(subject.outline.root, "hostname")
    name = node.value if node.kind is NodeKind.SCALAR else ""
    if not name or not node.line or any(variable in name for variable in VARIABLES):
        return
    if name.startswith("-"):
        message = "hostnamectl takes this name for an option, and the run ends there"
        yield subject.finding("hostname", Severity.ERROR, message, node, "begin it with a letter")
    elif not _HOSTNAME.fullmatch(name):
        message = "a host's name is letters, digits and hyphens: systemd makes another one of this"
        yield subject.finding("hostname", Severity.WARNING, message, node)
    elif "." in name and subject.lineage is Lineage.FLATCAR:
        message = f"Flatcar cuts the name at the first dot: the host is called {name.partition('.')[0]}"
        yield subject.finding("hostname", Severity.WARNING, message, node)


def _hosts(subject: Subject) -> Iterator[Finding]:
    node = subject.outline.at(subject.outline.root, "manage_etc_hosts")
    if node.kind is NodeKind.SCALAR and node.value not in ("", "localhost", "~", "null"):
        message = f"manage_etc_hosts knows localhost only: {node.value} ends the run before any file is written"
        yield subject.finding("hosts-option", Severity.ERROR, message, node, "write localhost, or drop the key")


def _users(subject: Subject) -> Iterator[Finding]:
    for user in subject.outline.items("users"):
        name = subject.outline.at(user, "name")
        if not name.value:
            yield subject.finding("user-name", Severity.WARNING, "a user without a name is skipped", user)
        elif not _USER.fullmatch(name.value):
            message = f"useradd refuses the name {name.value!r}, and the run ends there"
            yield subject.finding("user-name", Severity.ERROR, message, name)
        elif name.value == CORE:
            yield from _ignored(subject, user)
        for key, allowed in _FIELDS.items():
            node = subject.outline.at(user, key)
            if node.kind is NodeKind.SCALAR and not allowed.fullmatch(node.value) and node.value not in ("~", "null"):
                message = f"useradd refuses this {key}, and the run ends there"
                yield subject.finding("user-field", Severity.ERROR, message, node)


def _ignored(subject: Subject, user: Node) -> Iterator[Finding]:
    for entry in subject.outline.entries():
        if entry.section is user and entry.key is not None and entry.key.name not in _LATER:
            message = f"{entry.key.name} is ignored: {CORE} is there already, and gets only its password and keys"
            yield subject.finding("user-exists", Severity.WARNING, message, entry.name)


def _keys(subject: Subject) -> Iterator[Finding]:
    for holder in (subject.outline.root, *subject.outline.items("users")):
        for child in subject.outline.at(holder, "ssh_authorized_keys").children:
            key = subject.outline.follow(child)
            if key.kind is NodeKind.SCALAR and not _KEY.search(key.value) and "PRIVATE KEY" not in key.value:
                message = "sshd will not take this for a public key"
                hint = "write the line of the file that ends with .pub"
                yield subject.finding("ssh-key", Severity.WARNING, message, child, hint)


RULES = (_hostname, _hosts, _users, _keys)
