"""What a document becomes on a node: an ordered list of operations, computed without looking at any node.

The order is that of the real programs; so is the rule which operation fails and stops the rest (`Fail`, and whatever
the node refuses while `apply` runs the list).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from coupler.cloudinit.decode import CloudConfig
from coupler.cloudinit.golang import clean_path, format_value, join_path, quote, trim
from coupler.cloudinit.grammar import COREOS, UPDATE, Lineage, Type

UPDATE_CONF = "/etc/coreos/update.conf"
SHIPPED_UPDATE_CONF = "/usr/share/coreos/update.conf"
ENVIRONMENT_FILE = "/etc/environment"
KEY_LABEL = "coreos-cloudinit"
CORE = "core"

_NETWORK_SUFFIXES = frozenset(("network", "netdev", "link"))
_GENERATED_DROP_IN = "20-cloudinit.conf"
_SERVICES = {"etcd": "etcd", "etcd2": "etcd2", "fleet": "fleet", "locksmith": "locksmithd"}


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


def plan_access(hostname: str, keys: Iterable[str], label: str = KEY_LABEL) -> list[Operation]:
    """Return the operations for the host's name and the keys of `core`, both of which may be empty."""
    operations: list[Operation] = [SetHostname(hostname)] if hostname else []
    keys = tuple(keys)
    return [*operations, *([AuthorizeKeys(CORE, label, keys)] if keys else [])]


def plan_config(
    config: CloudConfig, lineage: Lineage, values: Mapping[str, str], label: str = KEY_LABEL
) -> list[Operation]:
    """Return the operations of one typed document, in order.

    `values` are the known address variables. Host name and keys of `core` come first in the document's own place for
    CoreOS; Flatcar sets them before any document (`plan_access`).
    """
    classic = lineage is Lineage.COREOS
    operations: list[Operation] = []
    if classic:
        operations += plan_access(config["hostname"], (), label)
    for user in config["users"]:
        operations += _user(user, lineage, label)
    if classic:
        operations += plan_access("", config["ssh_authorized_keys"], label)
    generated = list(_generated_files(config))
    operations += [operation for operation in generated if isinstance(operation, Fail | ReadUpdateConf)]
    operations += [
        WriteFile(file["path"], file["content"], file["permissions"], file["owner"]) for file in config["write_files"]
    ]
    operations += [operation for operation in generated if not isinstance(operation, Fail | ReadUpdateConf)]
    if values and all(clean_path(file["path"]) != ENVIRONMENT_FILE for file in config["write_files"]):
        operations.append(UpdateEnvironment(tuple(sorted(values.items()))))
    return operations + _units([*config["coreos"]["units"], *_generated_units(config["coreos"])])


def _user(user: dict[str, Any], lineage: Lineage, label: str) -> Iterator[Operation]:
    name = user["name"]
    if not name:
        yield Skip("User object has no 'name' field, skipping")
        return
    yield EnsureUser(name, user["passwd"], tuple(_useradd(user)))
    if user["ssh_authorized_keys"] and not (lineage is Lineage.FLATCAR and name == CORE):
        keys = tuple(user["ssh_authorized_keys"])
        yield Skip(f"Authorizing {len(keys)} SSH keys for user '{name}'")
        yield AuthorizeKeys(name, label, keys)
    github = [user["coreos_ssh_import_github"]] if user["coreos_ssh_import_github"] else []
    for login in [*github, *user["coreos_ssh_import_github_users"]]:
        yield Skip(f"Authorizing github user {login} SSH keys for CoreOS user '{name}'")
        yield ImportKeys(name, f"github-{login}", f"https://api.github.com/users/{login}/keys")
    if url := user["coreos_ssh_import_url"]:
        yield Skip(f"Authorizing SSH keys for CoreOS user '{name}' from '{url}'")
        yield ImportKeys(name, f"coreos-cloudinit-{name}", url)


def _useradd(user: dict[str, Any]) -> Iterator[str]:
    yield from ("--password", user["passwd"] or "*")
    if user["gecos"]:
        yield from ("--comment", quote(user["gecos"]))
    if user["homedir"]:
        yield from ("--home-dir", user["homedir"])
    yield "--no-create-home" if user["no_create_home"] else "--create-home"
    if user["primary_group"]:
        yield from ("--gid", user["primary_group"])
    if user["groups"]:
        yield from ("--groups", ",".join(user["groups"]))
    for key in ("no_user_group", "system", "no_log_init"):
        if user[key]:
            yield f"--{key.replace('_', '-')}"
    if user["shell"]:
        yield from ("--shell", user["shell"])
    yield user["name"]


def _generated_files(config: CloudConfig) -> Iterator[Operation]:
    coreos = config["coreos"]
    oem, update, hosts = coreos["oem"], coreos["update"], config["manage_etc_hosts"]
    if oem["id"]:
        yield WriteFile("etc/oem-release", _oem_release(oem))
    if any(update.values()):
        strategy = UPDATE.key("reboot_strategy")
        assert strategy is not None  # noqa: S101 - the grammar has it
        if update["reboot_strategy"] and not re.search(strategy.valid, update["reboot_strategy"]):
            value = quote(update["reboot_strategy"])
            options = quote(strategy.valid)
            yield Fail(f'invalid value {value} for option "RebootStrategy" (valid options: {options})')
            return
        yield ReadUpdateConf()
        yield WriteUpdateConf(tuple((name, value) for name, value in variables(update, UPDATE)))
    if hosts and hosts != "localhost":
        yield Fail("Invalid option to manage_etc_hosts")
        return
    if hosts:
        yield WriteHosts()
    flannel = COREOS.key("flannel")
    assert flannel is not None  # noqa: S101 - the grammar has it
    if options := variables(coreos["flannel"], flannel.type):
        yield WriteFile("run/flannel/options.env", "\n".join(f"{name}={value}" for name, value in options))


def _oem_release(oem: dict[str, str]) -> str:
    return (
        f"ID={oem['id']}\nVERSION_ID={oem['version_id']}\nNAME={quote(oem['name'])}\n"
        f"HOME_URL={quote(oem['home_url'])}\nBUG_REPORT_URL={quote(oem['bug_report_url'])}\n"
    )


def variables(section: dict[str, Any], wanted: Type) -> list[tuple[str, str]]:
    """Return (variable, value) for every key of a section that has a value other than zero, in the grammar's order."""
    return [(key.variable, format_value(section[key.name])) for key in wanted.keys if section[key.name]]


def _generated_units(coreos: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the units that sections imply: a drop-in for each service, then what an update setting restarts."""
    for section, service in _SERVICES.items():
        key = COREOS.key(section)
        assert key is not None  # noqa: S101 - the grammar has it
        settings = variables(coreos[section], key.type)
        content = "".join(f'Environment="{name}={value}"\n' for name, value in settings)
        drop_in = {"name": _GENERATED_DROP_IN, "content": f"[Service]\n{content}" if content else ""}
        yield _unit(f"{service}.service", runtime=True, drop_ins=[drop_in])
    update = coreos["update"]
    if strategy := update["reboot_strategy"]:
        off = strategy == "off"
        yield _unit("locksmithd.service", runtime=True, mask=off, command="stop" if off else "restart")
    if update["group"] or update["server"]:
        yield _unit("update-engine.service", command="restart")


def _unit(name: str, **settings: Any) -> dict[str, Any]:
    rest = {"mask": False, "enable": False, "runtime": False, "content": "", "command": "", "drop_ins": []}
    return {"name": name, **rest, **settings}


def is_network_unit(name: str) -> bool:
    """Return whether systemd-networkd, not systemd itself, reads the file of that name."""
    return name.rpartition(".")[2] in _NETWORK_SUFFIXES and "." in name


def unit_path(unit: dict[str, Any], drop_in: str = "") -> str:
    """Return where a unit's file, or its drop-in, goes. Names are taken as they are: `../x.service` leaves the folder."""
    folder = join_path(
        "/", "run" if unit["runtime"] else "etc", "systemd", "network" if is_network_unit(unit["name"]) else "system"
    )
    return join_path(folder, f"{unit['name']}.d", drop_in) if drop_in else join_path(folder, unit["name"])


def _units(units: list[dict[str, Any]]) -> list[Operation]:
    operations: list[Operation] = []
    commands: list[Operation] = []
    networkd = False
    for unit in units:
        name = unit["name"]
        if not name:
            operations.append(Skip("Skipping unit without name", "skip unnamed"))
            continue
        operations += _unit_files(unit)
        if unit["enable"] and is_network_unit(name):
            operations.append(Skip(f"Skipping enable for network-like unit {quote(name)}", f"skip-enable {name}"))
        elif unit["enable"]:
            operations.append(EnableUnit(name, unit["runtime"]))
        if is_network_unit(name):
            networkd = True
        elif unit["command"]:
            commands.append(RunCommand(name, unit["command"]))
    if any(isinstance(operation, WriteUnit | WriteDropIn) for operation in operations):
        operations.append(DaemonReload())
    return [*operations, *([RestartNetworkd()] if networkd else []), *commands]


def _unit_files(unit: dict[str, Any]) -> Iterator[Operation]:
    name, path = unit["name"], unit_path(unit)
    if unit["content"]:
        yield WriteUnit(name, path, unit["content"])
    for drop_in in unit["drop_ins"]:
        if drop_in["name"] and drop_in["content"]:
            yield WriteDropIn(drop_in["name"], unit_path(unit, drop_in["name"]), drop_in["content"])
    if unit["mask"]:
        yield MaskUnit(name, path)
    elif unit["runtime"]:
        yield UnmaskUnit(name, path)


def core_keys(configs: Iterable[CloudConfig]) -> list[str]:
    """Return the keys that Flatcar gives to `core` for these documents, each once."""
    keys: dict[str, None] = {}
    for config in configs:
        keys |= dict.fromkeys(config["ssh_authorized_keys"])
        for user in config["users"]:
            if user["name"] == CORE:
                keys |= dict.fromkeys(user["ssh_authorized_keys"])
    return list(keys)


def key_lines(keys: Iterable[str]) -> str:
    """Return keys as the input of `update-ssh-keys`: trimmed, one a line."""
    return "\n".join(trim(key) for key in keys) + "\n"
