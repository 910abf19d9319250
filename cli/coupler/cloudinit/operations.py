"""What can be done to a node: the operations that `plan` lists and `apply` carries out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SetHostname:
    """Set the host's name."""

    name: str


@dataclass(frozen=True)
class EnsureUser:
    """Create a user; of one that exists, only set the password. `useradd` is the argument list for the new one."""

    name: str
    password: str
    useradd: tuple[str, ...]


@dataclass(frozen=True)
class AuthorizeKeys:
    """Give a user SSH keys under a label."""

    user: str
    label: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class ImportKeys:
    """Fetch SSH keys (a JSON list of objects with `key`) from a URL and give them to a user under a label."""

    user: str
    label: str
    url: str


@dataclass(frozen=True)
class WriteFile:
    """Write a file; `permissions` is octal text, empty for 0644; `owner` is an argument of chown, or empty."""

    path: str
    content: str
    permissions: str = "0644"
    owner: str = ""


@dataclass(frozen=True)
class ReadUpdateConf:
    """Read the update.conf that `WriteUpdateConf` merges into; it must be there before any file is written."""


@dataclass(frozen=True)
class WriteUpdateConf:
    """Write update.conf with these variables set."""

    values: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class WriteHosts:
    """Write an /etc/hosts that maps 127.0.0.1 to the host's own name."""


@dataclass(frozen=True)
class UpdateEnvironment:
    """Set the address variables in /etc/environment."""

    values: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class WriteUnit:
    """Write a unit file."""

    name: str
    path: str
    content: str


@dataclass(frozen=True)
class WriteDropIn:
    """Write a drop-in of a unit."""

    name: str
    path: str
    content: str


@dataclass(frozen=True)
class MaskUnit:
    """Put a link to /dev/null in the place of a unit file."""

    name: str
    path: str


@dataclass(frozen=True)
class UnmaskUnit:
    """Take a runtime mask away, if there is one."""

    name: str
    path: str


@dataclass(frozen=True)
class EnableUnit:
    """Make the links of a unit's [Install] section."""

    name: str
    runtime: bool


@dataclass(frozen=True)
class DaemonReload:
    """Make systemd read its unit files again."""


@dataclass(frozen=True)
class RestartNetworkd:
    """Restart systemd-networkd."""


@dataclass(frozen=True)
class RunCommand:
    """Run a unit command (start, stop, …) and wait for its job to end."""

    unit: str
    command: str


@dataclass(frozen=True)
class RunScript:
    """Store a script in the workspace and run it as a transient unit."""

    content: str


@dataclass(frozen=True)
class Skip:
    """Do nothing; `word` is what the list of unit operations says of it, if anything."""

    log: str
    word: str = ""


@dataclass(frozen=True)
class Fail:
    """Stop with an error."""

    message: str


Operation = (
    SetHostname
    | EnsureUser
    | AuthorizeKeys
    | ImportKeys
    | WriteFile
    | ReadUpdateConf
    | WriteUpdateConf
    | WriteHosts
    | UpdateEnvironment
    | WriteUnit
    | WriteDropIn
    | MaskUnit
    | UnmaskUnit
    | EnableUnit
    | DaemonReload
    | RestartNetworkd
    | RunCommand
    | RunScript
    | Skip
    | Fail
)
