"""Users and groups of a scratch root: what `useradd`, `chpasswd` and `chown` of Container Linux's kind do to its files.

Only what a cloud-config can ask of them. Sources: useradd(8), chpasswd(8), passwd(5), group(5), shadow(5), subuid(5).
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field

from coupler.cloudinit.golang import to_bytes, to_text
from coupler.cloudinit.node import Files, Outcome

_SECONDS_PER_DAY = 86_400
_FIRST_UID, _LAST_UID, _LAST_SYSTEM_UID = 1000, 60_000, 999
_USERS_GID = 100
_FIRST_SUBORDINATE, _SUBORDINATES = 100_000, 65_536
_NAME = re.compile(r"(?![-+~])[^:,/\s]{1,32}")
_SHELL = "/bin/bash"
_FIELDS = {
    "--comment": (re.compile(r"[^:\n]*"), "comment"),
    "--home-dir": (re.compile(r"/[^:\n]*"), "home directory"),
    "--password": (re.compile(r"[^:\n]*"), "field"),
    "--shell": (re.compile(r"/[^:\n]*|\*"), "shell"),
}
"""What a field of a user may be, and what useradd calls it."""

_BAD_ARGUMENT, _NO_GROUP, _NAME_IN_USE = 3, 6, 9
_IMPLIED = {
    "passwd": ("root:x:0:0:root:/root:/bin/bash", "core:x:500:500::/home/core:/bin/bash"),
    "group": ("root:x:0:", "core:x:500:"),
}
"""The users and groups that a root without a user data base has: those of every Container Linux."""


@dataclass
class _NewUser:
    """The options of one `useradd` call."""

    name: str
    options: dict[str, str] = field(default_factory=dict)
    switches: set[str] = field(default_factory=set)

    @classmethod
    def parse(cls, arguments: list[str]) -> _NewUser:
        user = cls(arguments[-1])
        queue = arguments[:-1]
        while queue:
            word = queue.pop(0)
            if word in ("--password", "--comment", "--home-dir", "--gid", "--groups", "--shell"):
                user.options[word] = queue.pop(0)
            else:
                user.switches.add(word)
        return user


class Accounts:
    """The user data base in the /etc of a root. Without one, any name will do, and nothing is written."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.written = files.exists("/etc/passwd")
        self._lines: dict[str, list[str]] = {name: list(lines) for name, lines in _IMPLIED.items()}
        if self.written:
            for name in ("passwd", "group", "shadow", "gshadow", "subuid", "subgid"):
                path = f"/etc/{name}"
                self._lines[name] = to_text(files.read(path)).splitlines() if files.exists(path) else []

    def user(self, name: str) -> tuple[int, int] | None:
        """Return (uid, gid) of a user."""
        fields = self._find("passwd", name)
        return (int(fields[2]), int(fields[3])) if fields else None

    def useradd(self, arguments: list[str]) -> Outcome:
        """Create a user as `useradd ARGUMENTS` does."""
        user = _NewUser.parse(arguments)
        problem = self._problem(user)
        if problem is not None:
            return problem
        system = "--system" in user.switches
        uid = self._free("passwd", system=system)
        gid = self._primary_group(user, uid, system=system)
        home = user.options.get("--home-dir", f"/home/{user.name}")
        shell = user.options.get("--shell", _SHELL)
        self._add("passwd", f"{user.name}:x:{uid}:{gid}:{user.options.get('--comment', '')}:{home}:{shell}")
        ages = ":::::" if system else "0:99999:7:::"
        self._add("shadow", f"{user.name}:{user.options['--password']}:{_today()}:{ages}")
        for group in filter(None, user.options.get("--groups", "").split(",")):
            self._join(self._group_name(group) or "", user.name)
        if not system:
            self._add("subuid", f"{user.name}:{self._subordinate('subuid')}:{_SUBORDINATES}")
            self._add("subgid", f"{user.name}:{self._subordinate('subgid')}:{_SUBORDINATES}")
        self._save()
        if "--create-home" in user.switches and not self.files.exists(home):
            self.files.make_directory(home)
            self.chown(f"{uid}:{gid}", home)
        return Outcome(0)

    def _problem(self, user: _NewUser) -> Outcome | None:
        options = user.options
        if not _NAME.fullmatch(user.name):
            return Outcome(_BAD_ARGUMENT, f"useradd: invalid user name '{user.name}': use --badname to ignore")
        for option, (allowed, word) in _FIELDS.items():
            if option in options and not allowed.fullmatch(options[option]):
                return Outcome(_BAD_ARGUMENT, f"useradd: invalid {word} '{options[option]}'")
        for group in [options.get("--gid", ""), *options.get("--groups", "").split(",")]:
            if group and self.written and self._group_name(group) is None:
                return Outcome(_NO_GROUP, f"useradd: group '{group}' does not exist")
        if not user.switches & {"--no-user-group"} and "--gid" not in options and self._find("group", user.name):
            hint = "if you want to add this user to that group, use -g."
            return Outcome(_NAME_IN_USE, f"useradd: group {user.name} exists - {hint}")
        return None

    def _group_name(self, group: str) -> str | None:
        """Return the name of a group given by name or number, None if there is none."""
        lines = map(_fields, self._lines["group"])
        return next((fields[0] for fields in lines if group == fields[0] or group == fields[2]), None)

    def _primary_group(self, user: _NewUser, uid: int, *, system: bool) -> int:
        if group := user.options.get("--gid"):
            return int((self._find("group", self._group_name(group) or "") or ["", "", "0"])[2])
        if "--no-user-group" in user.switches:
            return _USERS_GID
        gid = self._free("group", system=system) if uid in self._numbers("group") else uid
        self._add("group", f"{user.name}:x:{gid}:")
        self._add("gshadow", f"{user.name}:!::")
        return gid

    def chpasswd(self, lines: str) -> Outcome:
        """Set hashed passwords as `chpasswd -e` does."""
        for line in lines.splitlines():
            name, _, password = line.partition(":")
            for index, entry in enumerate(self._lines.get("shadow", [])):
                fields = _fields(entry)
                if fields[0] == name:
                    self._lines["shadow"][index] = ":".join([name, password, str(_today()), *fields[3:]])
        self._save()
        return Outcome(0)

    def chown(self, owner: str, path: str) -> Outcome:
        """Change a file's owner as `chown OWNER FILE` does, as far as this process may."""
        user, separator, group = owner.partition(":")
        if not separator and self.user(owner) is None and "." in owner:
            user, separator, group = owner.partition(".")
        found = self._identity("passwd", user)
        if user and found is None:
            return self._unknown(f"invalid user: '{owner}'")
        uid, own_group = found or (-1, -1)
        gid = own_group if user and separator and not group else -1
        if group:
            named = self._identity("group", group)
            if named is None:
                return self._unknown(f"invalid group: '{owner}'")
            gid = named[0]
        if os.geteuid() == 0:
            os.chown(self.files.real(path), uid, gid)
        return Outcome(0)

    def _unknown(self, problem: str) -> Outcome:
        """Return the failure of chown; without a user data base nobody knows who is unknown."""
        return Outcome(1, f"chown: {problem}") if self.written else Outcome(0)

    def _identity(self, kind: str, name: str) -> tuple[int, int] | None:
        """Return (uid, gid) of a user, or (gid, gid) of a group, by name or number."""
        fields = self._find(kind, name)
        if fields:
            return int(fields[2]), int(fields[3] if kind == "passwd" else fields[2])
        return (int(name), -1) if name.isdigit() else None

    def _find(self, kind: str, name: str) -> list[str] | None:
        return next((fields for fields in map(_fields, self._lines[kind]) if name and fields[0] == name), None)

    def _free(self, kind: str, *, system: bool) -> int:
        taken = self._numbers(kind)
        ordinary = [number for number in taken if _FIRST_UID <= number <= _LAST_UID]
        number = _LAST_SYSTEM_UID if system else max([_FIRST_UID - 1, *ordinary]) + 1
        while number in taken:
            number -= 1
        return number

    def _numbers(self, kind: str) -> set[int]:
        return {int(line.split(":")[2]) for line in self._lines[kind] if line.count(":") > 1}

    def _subordinate(self, kind: str) -> int:
        ends = [int(fields[1]) + int(fields[2]) for fields in map(_fields, self._lines.get(kind, []))]
        return max([_FIRST_SUBORDINATE, *ends])

    def _join(self, group: str, name: str) -> None:
        for kind in ("group", "gshadow"):
            for index, entry in enumerate(self._lines.get(kind, [])):
                fields = _fields(entry)
                if fields[0] == group:
                    members = list(dict.fromkeys([*filter(None, fields[3].split(",")), name]))
                    self._lines[kind][index] = ":".join([*fields[:3], ",".join(members)])

    def _add(self, kind: str, line: str) -> None:
        self._lines.setdefault(kind, []).append(line)

    def _save(self) -> None:
        if not self.written:
            return
        for kind, lines in self._lines.items():
            path = f"/etc/{kind}"
            text = "".join(f"{line}\n" for line in lines)
            if self.files.exists(path) and to_bytes(text) != self.files.read(path):
                self.files.real(path).write_bytes(to_bytes(text))


def _fields(line: str) -> list[str]:
    return line.split(":")


def _today() -> int:
    return int(time.time()) // _SECONDS_PER_DAY
