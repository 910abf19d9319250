"""The keys of a `#cloud-config`, as data: names, types, environment variables, accepted values, deprecations.

The order of the keys is the order of the variables in the generated files. Source: the structures of both lineages
of coreos-cloudinit, which have the same keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Lineage(StrEnum):
    """Which real program is meant: CoreOS's last release, or the fork that Flatcar ships."""

    COREOS = "coreos"
    FLATCAR = "flatcar"


class Kind(StrEnum):
    """Kinds of values, in the words of the validator."""

    STRING = "string"
    INT = "int"
    FLOAT = "float64"
    BOOL = "bool"
    STRUCT = "struct"
    SLICE = "slice"


@dataclass(frozen=True)
class Type:
    """The type of a value; `name` is what the decoder's messages call it."""

    kind: Kind
    name: str
    keys: tuple[Key, ...] = ()
    element: Type | None = None

    @property
    def item(self) -> Type:
        """Return the type of a list's elements."""
        if self.element is None:
            raise TypeError(f"{self.name} is no list")
        return self.element

    def section(self, name: str) -> Type:
        """Return the type of a key that the grammar is known to have."""
        return next(key.type for key in self.keys if key.name == name)

    def key(self, name: str) -> Key | None:
        """Return the key of that name, or None."""
        return next((key for key in self.keys if key.name == name), None)

    @property
    def human(self) -> str:
        """Return the type in the words of the validator: `[]struct`, not `[]config.User`."""
        return f"[]{self.element.human}" if self.element else str(self.kind)


@dataclass(frozen=True)
class Key:
    """A key: its type, the variable it becomes, the values accepted (a regular expression), why it is deprecated."""

    name: str
    type: Type
    variable: str = ""
    valid: str = ""
    deprecated: str = ""


def struct(name: str, *keys: Key) -> Type:
    """Return the type of a section."""
    return Type(Kind.STRUCT, f"config.{name}", keys)


def list_of(element: Type) -> Type:
    """Return the type of a list."""
    return Type(Kind.SLICE, f"[]{element.name}", element=element)


STRING = Type(Kind.STRING, "string")
INT = Type(Kind.INT, "int")
FLOAT = Type(Kind.FLOAT, "float64")
BOOL = Type(Kind.BOOL, "bool")
STRINGS = list_of(STRING)

_NOT_SHIPPED = "{} is no longer shipped in Container Linux"
_ETCD2_ONLY = "etcd2 options no longer work for etcd"
_REMOTE_KEYS = "trying to fetch from a remote endpoint introduces too many intermittent errors"


def _variables(prefix: str, listing: str, **special: Key) -> tuple[Key, ...]:
    """Return keys from `name[:type]` words; each becomes the variable PREFIX_NAME unless `special` has it in full."""
    types = {"": STRING, "int": INT, "float": FLOAT, "bool": BOOL}
    keys = []
    for word in listing.split():
        name, _, kind = word.partition(":")
        keys.append(special.get(name) or Key(name, types[kind], f"{prefix}_{name.upper()}"))
    return tuple(keys)


def _etcd2_only(listing: str) -> dict[str, Key]:
    return {
        key.name: Key(key.name, key.type, key.variable, deprecated=_ETCD2_ONLY) for key in _variables("ETCD", listing)
    }


ETCD = struct(
    "Etcd",
    *_variables(
        "ETCD",
        "addr advertise_client_urls bind_addr ca_file cert_file cluster_active_size:int cluster_remove_delay:float"
        " cluster_sync_interval:float cors data_dir discovery discovery_fallback discovery_srv discovery_proxy"
        " election_timeout force_new_cluster graphite_host heartbeat_interval http_read_timeout:float"
        " http_write_timeout:float initial_advertise_peer_urls initial_cluster initial_cluster_state"
        " initial_cluster_token key_file listen_client_urls listen_peer_urls max_result_buffer:int"
        " max_retry_attempts:int max_snapshots max_wals name peer_addr peer_bind_addr peer_ca_file peer_cert_file"
        " peer_election_timeout:int peer_heartbeat_interval:int peer_key_file peers peers_file proxy"
        " retry_interval:float snapshot:bool snapshot_count trace verbose:bool very_verbose:bool"
        " very_very_verbose:bool",
        snapshot_count=Key("snapshot_count", INT, "ETCD_SNAPSHOTCOUNT"),
        **_etcd2_only(
            "advertise_client_urls discovery_fallback discovery_srv discovery_proxy election_timeout:int"
            " force_new_cluster:bool heartbeat_interval:int initial_advertise_peer_urls initial_cluster"
            " initial_cluster_state initial_cluster_token listen_client_urls listen_peer_urls max_snapshots:int"
            " max_wals:int proxy"
        ),
    ),
)

ETCD2 = struct(
    "Etcd2",
    *_variables(
        "ETCD",
        "advertise_client_urls ca_file cert_file client_cert_auth:bool cors data_dir debug:bool discovery"
        " discovery_fallback discovery_srv discovery_proxy election_timeout:int enable_pprof:bool"
        " force_new_cluster:bool heartbeat_interval:int initial_advertise_peer_urls initial_cluster"
        " initial_cluster_state initial_cluster_token key_file listen_client_urls listen_peer_urls log_package_levels"
        " max_snapshots:int max_wals:int name peer_ca_file peer_cert_file peer_key_file peer_client_cert_auth:bool"
        " peer_trusted_ca_file proxy proxy_dial_timeout:int proxy_failure_wait:int proxy_read_timeout:int"
        " proxy_refresh_interval:int proxy_write_timeout:int snapshot_count:int strict_reconfig_check:bool"
        " trusted_ca_file wal_dir",
        ca_file=Key(
            "ca_file", STRING, "ETCD_CA_FILE", deprecated="ca_file obsoleted by trusted_ca_file and client_cert_auth"
        ),
        peer_ca_file=Key(
            "peer_ca_file",
            STRING,
            "ETCD_PEER_CA_FILE",
            deprecated="peer_ca_file obsoleted peer_trusted_ca_file and peer_client_cert_auth",
        ),
        proxy=Key("proxy", STRING, "ETCD_PROXY", valid=r"^(on|off|readonly)$"),
    ),
)

FLANNEL = struct(
    "Flannel",
    *_variables(
        "FLANNELD",
        "etcd_endpoints etcd_cafile etcd_certfile etcd_keyfile etcd_prefix etcd_username etcd_password ip_masq"
        " subnet_file interface public_ip",
        interface=Key("interface", STRING, "FLANNELD_IFACE"),
    ),
)

FLEET = struct(
    "Fleet",
    *_variables(
        "FLEET",
        "agent_ttl authorized_keys_file disable_engine:bool engine_reconcile_interval:float etcd_cafile etcd_certfile"
        " etcd_keyfile etcd_key_prefix etcd_request_timeout:float etcd_servers etcd_username etcd_password metadata"
        " public_ip token_limit:int verbosity:int verify_units:bool",
    ),
)

LOCKSMITH = struct(
    "Locksmith",
    *_variables("LOCKSMITHD", "endpoint etcd_cafile etcd_certfile etcd_keyfile etcd_username etcd_password group"),
    Key(
        "window_start",
        STRING,
        "REBOOT_WINDOW_START",
        valid=r"^((?i:sun|mon|tue|wed|thu|fri|sat|sun) )?0*([0-9]|1[0-9]|2[0-3]):0*([0-9]|[1-5][0-9])$",
    ),
    Key("window_length", STRING, "REBOOT_WINDOW_LENGTH", valid=r"^[-+]?([0-9]*(\.[0-9]*)?[a-z]+)+$"),
)

OEM = struct(
    "OEM",
    Key("id", STRING),
    Key("name", STRING),
    Key("version_id", STRING),
    Key("home_url", STRING),
    Key("bug_report_url", STRING),
)

STRATEGIES = r"^(etcd-lock|reboot|off)$"
"""Reboot strategies. The applier refuses any other, which for the rest of the keys only the validator does."""

UPDATE = struct(
    "Update",
    Key("reboot_strategy", STRING, "REBOOT_STRATEGY", valid=STRATEGIES),
    Key("group", STRING, "GROUP"),
    Key("server", STRING, "SERVER"),
)

UNIT = struct(
    "Unit",
    Key("name", STRING),
    Key("mask", BOOL),
    Key("enable", BOOL),
    Key("runtime", BOOL),
    Key("content", STRING),
    Key(
        "command",
        STRING,
        valid=r"^(start|stop|restart|reload|try-restart|reload-or-restart|reload-or-try-restart)$",
    ),
    Key("drop_ins", list_of(struct("UnitDropIn", Key("name", STRING), Key("content", STRING)))),
)

FILE = struct(
    "File",
    Key(
        "encoding",
        STRING,
        valid=r"^(base64|b64|gz|gzip|gz\+base64|gzip\+base64|gz\+b64|gzip\+b64)$",
    ),
    Key("content", STRING),
    Key("owner", STRING),
    Key("path", STRING),
    Key("permissions", STRING, valid=r"^0?[0-7]{3,4}$"),
)

USER = struct(
    "User",
    Key("name", STRING),
    Key("passwd", STRING),
    Key("ssh_authorized_keys", STRINGS),
    Key("coreos_ssh_import_github", STRING, deprecated=_REMOTE_KEYS),
    Key("coreos_ssh_import_github_users", STRINGS, deprecated=_REMOTE_KEYS),
    Key("coreos_ssh_import_url", STRING, deprecated=_REMOTE_KEYS),
    Key("gecos", STRING),
    Key("homedir", STRING),
    Key("no_create_home", BOOL),
    Key("primary_group", STRING),
    Key("groups", STRINGS),
    Key("no_user_group", BOOL),
    Key("system", BOOL),
    Key("no_log_init", BOOL),
    Key("shell", STRING),
)

COREOS = struct(
    "CoreOS",
    Key("etcd", ETCD, deprecated=_NOT_SHIPPED.format("etcd")),
    Key("etcd2", ETCD2, deprecated=_NOT_SHIPPED.format("etcd2")),
    Key("flannel", FLANNEL),
    Key("fleet", FLEET, deprecated=_NOT_SHIPPED.format("fleet")),
    Key("locksmith", LOCKSMITH),
    Key("oem", OEM),
    Key("update", UPDATE),
    Key("units", list_of(UNIT)),
)

CLOUD_CONFIG = struct(
    "CloudConfig",
    Key("ssh_authorized_keys", STRINGS),
    Key("coreos", COREOS),
    Key("write_files", list_of(FILE)),
    Key("hostname", STRING),
    Key("users", list_of(USER)),
    Key("manage_etc_hosts", Type(Kind.STRING, "config.EtcHosts")),
)
