"""The configuration file: what it may say, and the reader that says where it is wrong.

Each section is a frozen dataclass; its fields are the keys, with `-` for `_`. A field without a default must be given.
Source of the format: YAML 1.1 as PyYAML's safe loader reads it.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from coupler.errors import ConfigurationError, Finding, Location, Severity, excerpt_of

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class EtcdSettings:
    """An etcd: client URLs, the version of its API (2 or 3), who we are to it (PEM files, or user and password)."""

    endpoints: tuple[str, ...]
    api: Literal[2, 3] = 3
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    user: str | None = None
    password_file: Path | None = None


@dataclass(frozen=True, slots=True)
class AnnouncementsSettings:
    """Announcements in etcd below `prefix`. A service without a document is served as `<name>.<domain>`.

    When etcd was away, what has expired meanwhile may be announced again for `grace` seconds before it goes.
    """

    etcd: EtcdSettings
    prefix: str = "/services/"
    domain: str = ""
    grace: float = 15.0


@dataclass(frozen=True, slots=True)
class KubernetesSettings:
    """What is read of Kubernetes, and how it is reached: a URL, a kubeconfig, or neither inside a pod.

    `pods` is a label selector of the pods that are read for their annotations: empty for all, absent for none.
    No `namespaces` means all of them. `load_balancer` lists the addresses (ranges `a-b`, networks) for Services of that
    type, which are served only if there are any; `published` what is written into the status of Ingresses and Gateways.
    Without `write_status` nothing is ever written: no status, and no Event about what is wrong with an object. Several
    registrators elect the one that writes by a Lease, NAMESPACE/NAME; with an empty one each of them writes.
    """

    server: str | None = None
    kubeconfig: Path | None = None
    context: str | None = None
    namespaces: tuple[str, ...] = ()
    annotations: str = "coupler.io/"
    pods: str | None = None
    services: bool = True
    ingress: bool = True
    ingress_class: str = "coupler"
    gateway: bool = True
    load_balancer: tuple[str, ...] = ()
    published: tuple[str, ...] = ()
    write_status: bool = True
    lease: str = "kube-system/coupler-registrator"


@dataclass(frozen=True, slots=True)
class SourcesSettings:
    """Where the desired state comes from. Of two that want the same, the one that stands first in the file counts."""

    kubernetes: KubernetesSettings | None = None
    announcements: AnnouncementsSettings | None = None


@dataclass(frozen=True, slots=True)
class HAProxySettings:
    """A HAProxy on this machine. `base` are your own files, read before ours; `master` its master socket, if any.

    `https_port` is where plain requests are sent, if that is not the port of the first address in `https`.
    """

    socket: Path = Path("/run/haproxy/admin.sock")
    config: Path = Path("/etc/haproxy/coupler.cfg")
    base: tuple[Path, ...] = (Path("/etc/haproxy/haproxy.cfg"),)
    program: str = "haproxy"
    master: Path | None = None
    http: tuple[str, ...] = ("*:80",)
    https: tuple[str, ...] = ()
    https_port: int | None = None
    tcp_address: str = "*"
    accept_proxy: bool = False
    reload_interval: float = 1.0


@dataclass(frozen=True, slots=True)
class NginxSettings:
    """An nginx on this machine. `main` is your own nginx.conf, which includes our files in `folder`.

    `status` is an address of loopback on which nginx says which generation of our files it runs. `hash_sizes`: our file
    sets the sizes of nginx's hashes; false where your own does.
    """

    folder: Path = Path("/etc/nginx/coupler")
    main: Path = Path("/etc/nginx/nginx.conf")
    program: str = "nginx"
    pid_file: Path = Path("/run/nginx.pid")
    http: tuple[str, ...] = ("*:80",)
    https: tuple[str, ...] = ()
    tcp_address: str = "*"
    accept_proxy: bool = False
    status: str = "127.0.0.1:10299"
    hash_sizes: bool = True


@dataclass(frozen=True, slots=True)
class VulcandSettings:
    """A vulcand that reads its keys below `prefix`. `election` names the key by which its registrators elect a leader.

    `probe` lists base URLs of vulcands that are asked whether they still follow etcd. `seal_key_file` holds what
    vulcand has as `-sealKey`: with it, hosts are served over TLS, and plain requests are sent to `https_port`, where
    that is wanted.
    """

    etcd: EtcdSettings
    prefix: str = "vulcand"
    election: str = "coupler/registrator/vulcand"
    probe: tuple[str, ...] = ()
    seal_key_file: Path | None = None
    https_port: int = 443


@dataclass(frozen=True, slots=True)
class BalancersSettings:
    """What is moved. Several at once are moved independently."""

    haproxy: HAProxySettings | None = None
    nginx: NginxSettings | None = None
    vulcand: VulcandSettings | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole file. `listen` serves what may be read by anyone on this machine, `control` what may be changed.

    `audit` is the time between two looks for drift, in seconds. `state` is the folder for what outlives a restart.
    """

    sources: SourcesSettings
    balancers: BalancersSettings
    listen: str = "127.0.0.1:9102"
    control: Path | None = None
    state: Path | None = None
    audit: float = 60.0
    precedence: tuple[str, ...] = dataclasses.field(default=(), metadata={"derived": True})


def load(path: Path) -> Settings:
    """Return what a configuration file says. Raises ConfigurationError with every finding."""
    return parse(_text_of(path), str(path))


def parse(text: str, file: str) -> Settings:
    """Return what the text of a configuration file says; `file` is its name in findings."""
    settings: Settings
    settings, node = _parsed(Settings, text, file, _check)
    return dataclasses.replace(settings, precedence=tuple(_keys_of(node, "sources")))


def read(kind: type[Any], path: Path, check: Callable[[Any, Reader, yaml.Node], None]) -> Any:
    """Return what another configuration file says, as the dataclass `kind`; `check` adds findings of its own.

    Raises ConfigurationError with every finding.
    """
    return _parsed(kind, _text_of(path), str(path), check)[0]


def _text_of(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError(f"{path} cannot be read", why, "name the configuration file with --config") from error


def _parsed(
    kind: type[Any], text: str, file: str, check: Callable[[Any, Reader, yaml.Node], None]
) -> tuple[Any, yaml.Node]:
    reader = Reader(text, file)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        reader.find("yaml", f"{error.problem}", mark)
        raise reader.error() from error
    if node is None:
        needed = [f"`{f.name}`" for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING]
        reader.find("required", f"the file is empty: it needs {', '.join(needed[:-1])} and {needed[-1]}", None)
        raise reader.error()
    settings = reader.section(kind, node, "the file")
    if settings is not None:
        check(settings, reader, node)
    if settings is None or reader.findings:
        raise reader.error()
    return settings, node


def _check(settings: Settings, reader: Reader, node: yaml.Node) -> None:
    sources, balancers = settings.sources, settings.balancers
    if not (sources.kubernetes or sources.announcements):
        reader.find("nothing-to-follow", "`sources` names none", node.start_mark, "name kubernetes or announcements")
    if not (balancers.haproxy or balancers.nginx or balancers.vulcand):
        reader.find("nothing-to-move", "`balancers` names none", node.start_mark, "name haproxy, nginx or vulcand")
    lease = sources.kubernetes.lease if sources.kubernetes else ""
    if lease and not re.fullmatch(r"[a-z0-9-]{1,63}/[a-z0-9.-]{1,253}", lease):
        where = _mark_of(node, "sources", "kubernetes", "lease")
        reader.find("lease", f"`{lease}` names no Lease", where, "write NAMESPACE/NAME, or an empty text for none")


class Reader:
    """Reads one file, and remembers what is wrong with it."""

    def __init__(self, text: str, file: str) -> None:
        self._text, self._file = text, file
        self.findings: list[Finding] = []

    def error(self) -> ConfigurationError:
        """Return the error that names every finding."""
        return ConfigurationError(
            f"{self._file} is wrong",
            "\n".join(finding.text() for finding in self.findings),
            findings=tuple(self.findings),
        )

    def find(self, code: str, message: str, mark: yaml.Mark | None, hint: str | None = None) -> None:
        """Remember a finding; `mark` is where."""
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 1)
        where = Location(self._file, line, column)
        excerpt = excerpt_of(self._text, line) if line else ()
        self.findings.append(Finding(code, Severity.ERROR, message, where, excerpt, hint))

    def section(self, kind: type[Any], node: yaml.Node, name: str) -> Any:
        """Return a dataclass; None, with findings, where it cannot be made."""
        if not isinstance(node, yaml.MappingNode):
            self.find("type", f"{name} must be a mapping of keys", node.start_mark)
            return None
        fields = {f.name.replace("_", "-"): f for f in dataclasses.fields(kind) if not f.metadata.get("derived")}
        types_ = _types_of(kind)
        values: dict[str, Any] = {}
        before = len(self.findings)
        for key, value in node.value:
            word = str(key.value)
            if word not in fields:
                close = difflib.get_close_matches(word, fields, 1)
                hint = f"did you mean `{close[0]}`?" if close else f"allowed: {', '.join(fields)}"
                self.find("unknown-key", f"{name} has no key `{word}`", key.start_mark, hint)
                continue
            if fields[word].name in values:
                self.find("twice", f"`{word}` is given twice", key.start_mark)
                continue
            values[fields[word].name] = self._value(types_[fields[word].name], value, f"`{word}`")
        for word, field in fields.items():
            if field.default is dataclasses.MISSING and field.name not in values:
                self.find("required", f"{name} needs the key `{word}`", node.start_mark)
        return kind(**values) if len(self.findings) == before else None

    def _value(self, kind: Any, node: yaml.Node, name: str) -> Any:
        if isinstance(kind, types.UnionType):
            kind = next(option for option in typing.get_args(kind) if option is not type(None))
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            if isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null"):
                node = yaml.MappingNode("tag:yaml.org,2002:map", [], node.start_mark, node.end_mark)
            return self.section(kind, node, name)
        if typing.get_origin(kind) is tuple:
            if not isinstance(node, yaml.SequenceNode):
                self.find("type", f"{name} must be a list", node.start_mark)
                return ()
            inner = typing.get_args(kind)[0]
            return tuple(self._value(inner, item, f"an entry of {name}") for item in node.value)
        if typing.get_origin(kind) is Literal:
            allowed = typing.get_args(kind)
            value = self._scalar(type(allowed[0]), node, name)
            if value is not None and value not in allowed:
                words = " or ".join(str(choice) for choice in allowed)
                self.find("choice", f"{name} must be {words}", node.start_mark)
            return value
        return self._scalar(kind, node, name)

    def _scalar(self, kind: type[Any], node: yaml.Node, name: str) -> Any:
        tag = node.tag.rpartition(":")[2] if isinstance(node, yaml.ScalarNode) else ""
        accepted = {str: ("str",), Path: ("str",), bool: ("bool",), int: ("int",), float: ("int", "float")}[kind]
        if tag not in accepted:
            words = {str: "text", Path: "a path", bool: "true or false", int: "a whole number", float: "a number"}
            self.find("type", f"{name} must be {words[kind]}", node.start_mark, _quote_hint(kind, node))
            return None
        value = yaml.SafeLoader("").construct_object(node)
        return kind(value)


def _quote_hint(kind: type[Any], node: yaml.Node) -> str | None:
    return f"put it into quotes: '{node.value}'" if kind is str and isinstance(node, yaml.ScalarNode) else None


def _types_of(kind: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _mark_of(node: yaml.Node, *keys: str) -> yaml.Mark | None:
    """Return where the value of a key stands."""
    for word in keys:
        node = next(value for key, value in node.value if key.value == word)
    return node.start_mark


def _keys_of(node: yaml.Node, section: str) -> list[str]:
    """Return the keys of a section in the order of the file."""
    for key, value in node.value:
        if key.value == section and isinstance(value, yaml.MappingNode):
            return [str(inner.value) for inner, _ in value.value]
    return []
