"""What a document becomes on a node: an ordered list of operations, computed without looking at any node.

The order is that of the real programs; so is the rule which operation fails and stops the rest (`Fail`, and whatever
the node refuses while `apply` runs the list).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from coupler.cloudinit.golang import clean_path, format_value, join_path, quote, to_bytes, to_text, trim
from coupler.cloudinit.grammar import COREOS, FLANNEL, STRATEGIES, UPDATE, Lineage, Type
from coupler.cloudinit.operations import (
    AuthorizeKeys,
    DaemonReload,
    EnableUnit,
    EnsureUser,
    Fail,
    ImportKeys,
    MaskUnit,
    Operation,
    ReadUpdateConf,
    RestartNetworkd,
    RunCommand,
    SetHostname,
    Skip,
    UnmaskUnit,
    UpdateEnvironment,
    WriteDropIn,
    WriteFile,
    WriteHosts,
    WriteUnit,
    WriteUpdateConf,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from coupler.cloudinit.decode import CloudConfig

UPDATE_CONF = "/etc/coreos/update.conf"
SHIPPED_UPDATE_CONF = "/usr/share/coreos/update.conf"
ENVIRONMENT_FILE = "/etc/environment"
KEY_LABEL = "coreos-cloudinit"
CORE = "core"
MAX_HOSTNAME = 63
"""Bytes of a host name that Flatcar keeps."""

_NETWORK_SUFFIXES = frozenset(("network", "netdev", "link"))
_GENERATED_DROP_IN = "20-cloudinit.conf"
_SERVICES = {"etcd": "etcd", "etcd2": "etcd2", "fleet": "fleet", "locksmith": "locksmithd"}


def plan_access(hostname: str, keys: Iterable[str], label: str = KEY_LABEL) -> list[Operation]:
    """Return the operations for the host's name and the keys of `core`, both of which may be empty."""
    operations: list[Operation] = [SetHostname(hostname)] if hostname else []
    if keys := tuple(keys):
        operations += [AuthorizeKeys(CORE, label, keys), Skip("Authorized SSH keys for core user")]
    return operations


def plan_document(config: CloudConfig, lineage: Lineage, values: Mapping[str, str]) -> list[Operation]:
    """Return every operation of a document that comes alone, without metadata: host name and keys included."""
    if lineage is Lineage.COREOS:
        return plan_config(config, lineage, values)
    name = to_text(to_bytes(config["hostname"].split(".")[0])[:MAX_HOSTNAME])
    return [*plan_access(name, core_keys([config])), *plan_config(config, lineage, values)]


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
        if update["reboot_strategy"] and not re.search(STRATEGIES, update["reboot_strategy"]):
            value, options = quote(update["reboot_strategy"]), quote(STRATEGIES)
            yield Fail(f'invalid value {value} for option "RebootStrategy" (valid options: {options})')
            return
        yield ReadUpdateConf()
        yield WriteUpdateConf(tuple((name, value) for name, value in variables(update, UPDATE)))
    if hosts and hosts != "localhost":
        yield Fail("Invalid option to manage_etc_hosts")
        return
    if hosts:
        yield WriteHosts()
    if settings := variables(coreos["flannel"], FLANNEL):
        yield WriteFile("run/flannel/options.env", "\n".join(f"{name}={value}" for name, value in settings))


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
        settings = variables(coreos[section], COREOS.section(section))
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
    """Return where a unit's file, or its drop-in, goes. Names are taken as they are: `../x.service` climbs out."""
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


def harm_in(config: CloudConfig) -> str | None:
    """Return why a document is better not applied though the real program would: it would do harm in silence."""
    for unit in config["coreos"]["units"]:
        for name in (unit["name"], *(drop_in["name"] for drop_in in unit["drop_ins"])):
            if "/" in name:
                return f"the unit or drop-in name {quote(name)} leaves its folder"
    for file in config["write_files"]:
        if re.fullmatch(r"0*[1-7][0-7]{3}", file["permissions"]):
            return f"permissions {file['permissions']} of {file['path']} would lose their special bits"
    return None


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
