"""`cluster kubeconfig`: the administrator's way in, as a file of its own or merged into kubectl's.

The format is https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/. Entries of ours carry an extension that
says of which cluster they are, so that a later run replaces them and leaves everything else.
"""

from __future__ import annotations

import base64
import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from coupler.adapters import pki
from coupler.errors import CouplerError, ExitCode
from coupler.model.fields import API_PORT
from coupler.result import Json, State
from coupler.workflows.certificates import Store
from coupler.workflows.workspace import Workspace, read, write

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coupler.model import LoadedCluster

ADMIN = "kubernetes/admin"
_AUTHORITY = "kubernetes/ca"
_EXTENSION = "coupler"
_LISTS = ("clusters", "users", "contexts")

Config = dict[str, Any]
"""A kubeconfig as YAML has it."""


@dataclass(frozen=True)
class Kubeconfig:
    """The answer: the kubeconfig itself where it goes to standard output, or else the file that has it."""

    context: str
    server: str
    expires: datetime
    content: str = ""
    path: Path | None = None
    state: State | None = None
    backup: Path | None = None
    command: str = "kubectl get nodes"

    @property
    def exit_code(self) -> ExitCode:
        """Always done: what goes wrong is an error."""
        return ExitCode.DONE

    def data(self) -> Json:
        """Return the answer as JSON-serialisable data, without the key."""
        return {
            "context": self.context,
            "server": self.server,
            "expires": self.expires.isoformat(),
            "path": str(self.path) if self.path else None,
            "state": str(self.state) if self.state else None,
            "backup": str(self.backup) if self.backup else None,
        }

    def text(self) -> str:
        """Return the kubeconfig, or where it is and the next command."""
        if self.path is None:
            return self.content.rstrip("\n")
        verb = "is unchanged" if self.state is State.UNCHANGED else "written"
        lines = [f"{self.path} {verb}: context {self.context}, server {self.server}, until {self.expires:%Y-%m-%d}"]
        lines += [f"as it was: {self.backup}"] if self.backup else []
        return "\n".join([*lines, f"next: {self.command}"])


def kubeconfig(
    loaded: LoadedCluster, *, output_file: Path | None = None, merge: bool = False, context: str | None = None
) -> Kubeconfig:
    """Return the administrator's kubeconfig, write it to a file, or merge it into the one that kubectl reads.

    Raises:
        CouplerError: the cluster has no Kubernetes or no certificate that serves, or a file cannot be read or written.
    """
    ours, answer = _ours(loaded, context)
    if merge:
        return _merged(ours, answer)
    text = _text(ours)
    if output_file is None:
        return Kubeconfig(answer.context, answer.server, answer.expires, content=text)
    path = output_file.absolute()
    state = State.UNCHANGED if _current(path, text) else State.DONE
    if state is State.DONE:
        _write(path, text)
    command = f"kubectl --kubeconfig {output_file} get nodes"
    return Kubeconfig(answer.context, answer.server, answer.expires, path=path, state=state, command=command)


def _ours(loaded: LoadedCluster, context: str | None) -> tuple[Config, Kubeconfig]:
    cluster = loaded.cluster
    if not cluster.kubernetes.enabled:
        raise CouplerError("the cluster runs no Kubernetes", why="cluster.yaml has `kubernetes: {enabled: false}`")
    store = Store(Workspace.beside(loaded.path).pki, cluster)
    authority, admin = store.certificate(_AUTHORITY), store.pair(ADMIN)
    if not authority or not admin:
        raise CouplerError(
            "there is no certificate of the administrator yet", why=".coupler/pki lacks it", next_step="cluster init"
        )
    expires = pki.expiry(admin.certificate)
    if expires <= datetime.now(UTC):
        raise CouplerError(
            "the administrator's certificate has expired", why=f"{expires:%Y-%m-%d}", next_step="cluster certs renew"
        )
    name = context or cluster.name
    hosts = {f"{name}-{node.name}": f"{node.address}:{API_PORT}" for node in cluster.control_nodes}
    first = str(cluster.kubernetes.endpoint or next(iter(hosts.values())))
    # Where there are several API servers, each has a context of its own, for the day when one does not answer.
    servers = {name: first, **(hosts if len(hosts) > 1 or cluster.kubernetes.endpoint else {})}
    mark = {"cluster": cluster.name, "authority": hashlib.sha256(authority).hexdigest()}
    config = _config(name, servers, mark, authority, admin)
    return config, Kubeconfig(name, f"https://{first}", expires)


def _config(
    name: str, servers: Mapping[str, str], mark: Mapping[str, str], authority: bytes, admin: pki.KeyPair
) -> Config:
    extensions = [{"name": _EXTENSION, "extension": dict(mark)}]
    user = f"{name}-admin"

    def encoded(pem: bytes) -> str:
        return base64.b64encode(pem).decode("ascii")

    def cluster_of(server: str) -> Config:
        return {
            "server": f"https://{server}",
            "certificate-authority-data": encoded(authority),
            "extensions": extensions,
        }

    credentials = {
        "client-certificate-data": encoded(admin.certificate),
        "client-key-data": encoded(admin.key),
        "extensions": extensions,
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": key, "cluster": cluster_of(server)} for key, server in servers.items()],
        "users": [{"name": user, "user": credentials}],
        "contexts": [
            {"name": key, "context": {"cluster": key, "user": user, "extensions": extensions}} for key in servers
        ],
        "current-context": name,
    }


def _merged(ours: Config, answer: Kubeconfig) -> Kubeconfig:
    """Put our entries into the file that kubectl would write them to."""
    files = _files()
    existing = {file: _load(file) for file in files}
    chosen = _file_for(existing, answer.context)
    with _locked(chosen):
        before = _load(chosen) or {}
        after = merged(before, ours, chosen)
        others = [file for file in files if file != chosen]
        command = "kubectl get nodes" if not others else f"kubectl --context {answer.context} get nodes"
        if after == before:
            return _with(answer, chosen, State.UNCHANGED, None, command)
        backup = _backup(chosen)
        _write(chosen, _text(after))
        return _with(answer, chosen, State.DONE, backup, command)


def _with(answer: Kubeconfig, path: Path, state: State, backup: Path | None, command: str) -> Kubeconfig:
    return Kubeconfig(
        answer.context, answer.server, answer.expires, path=path, state=state, backup=backup, command=command
    )


def merged(before: Config, ours: Config, path: Path) -> Config:
    """Return a kubeconfig with our entries in it, in the places of earlier ones of this cluster.

    Raises:
        CouplerError: an entry has the name of one of ours, and is of another make.
    """
    mark = _mark(ours["users"][0]["user"])
    after = {"apiVersion": "v1", "kind": "Config", **before}
    for kind in _LISTS:
        entries = {entry["name"]: entry for entry in ours[kind]}
        kept: list[Config] = []
        for entry in before.get(kind) or []:
            found = _mark(entry.get(kind[:-1]))
            name = entry.get("name")
            own = bool(found) and (found["cluster"] == mark["cluster"] or found["authority"] == mark["authority"])
            if name in entries and not own:
                raise CouplerError(
                    f"{path} has another {kind[:-1]} called {name}",
                    why="it is not from this cluster, and would be lost",
                    next_step="give ours another name: cluster kubeconfig --merge --context NAME",
                )
            if name in entries:
                kept.append(entries.pop(name))
            elif not own:
                kept.append(entry)
        after[kind] = kept + list(entries.values())
    return {**after, "current-context": ours["current-context"]}


def _mark(body: object) -> dict[str, str]:
    """Return what our extension says of an entry, empty where it is not of our making."""
    extensions = body.get("extensions") if isinstance(body, dict) else None
    for extension in extensions or []:
        said = extension.get("extension") if extension.get("name") == _EXTENSION else None
        if isinstance(said, dict) and {"cluster", "authority"} <= said.keys():
            return said
    return {}


def _files() -> list[Path]:
    """Return the files that kubectl reads, in its order (https://kubernetes.io/docs/reference/kubectl/generated/kubectl_config/)."""
    named = [Path(name) for name in os.environ.get("KUBECONFIG", "").split(os.pathsep) if name]
    return named or [Path("~/.kube/config").expanduser()]


def _file_for(existing: Mapping[Path, Config | None], context: str) -> Path:
    """Return the file that has the context; else the first that there is; else the last that may be."""
    there = [file for file, config in existing.items() if config is not None]
    having = [
        file for file in there if any(c.get("name") == context for c in (existing[file] or {}).get("contexts") or [])
    ]
    return next(iter(having or there), list(existing)[-1])


def _load(path: Path) -> Config | None:
    """Return what is in a kubeconfig, None where there is no such file."""
    try:
        text = read(path)
        value = yaml.load(text, _Faithful) if text is not None else None  # noqa: S506 - a SafeLoader
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CouplerError(f"{path} cannot be read", why=str(error).splitlines()[0], next_step="mend it") from error
    if text is None:
        return None
    lists = [(value or {}).get(kind) or [] for kind in _LISTS] if isinstance(value, dict | None) else [None]
    if not all(isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries) for entries in lists):
        raise CouplerError(f"{path} is not a kubeconfig", why="it has another shape", next_step="look at it")
    return value or {}


class _locked:  # noqa: N801 - a context manager
    """kubectl's own lock on a kubeconfig: a file beside it."""

    def __init__(self, path: Path) -> None:
        self._lock = path.with_name(f"{path.name}.lock")

    def __enter__(self) -> None:
        try:
            self._lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0))
        except FileExistsError:
            raise CouplerError(
                f"{self._lock} is there", why="somebody else is changing the kubeconfig", next_step="try again"
            ) from None
        except OSError as error:
            raise _unwritable(self._lock, error) from error

    def __exit__(self, *_: object) -> None:
        self._lock.unlink(missing_ok=True)


def _backup(path: Path) -> Path | None:
    """Keep a kubeconfig as it is: comments and the like do not outlive a change."""
    content = read(path)
    if content is None:
        return None
    backup = path.with_name(f"{path.name}.{datetime.now(UTC):%Y%m%dT%H%M%SZ}.bak")
    try:
        write(backup, content, 0o600)
    except OSError as error:
        raise _unwritable(backup, error) from error
    return backup


def _current(path: Path, text: str) -> bool:
    try:
        return read(path) == text.encode() and path.stat().st_mode & 0o777 == 0o600  # noqa: PLR2004 - octal modes
    except OSError:
        return False


def _write(path: Path, text: str) -> None:
    try:
        write(path.resolve(), text.encode(), 0o600)  # what a link points to, not the link
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> CouplerError:
    return CouplerError(f"{path} cannot be written", why=error.strerror, next_step="choose another: --output-file FILE")


def _text(config: Config) -> str:
    return yaml.dump(config, Dumper=_Plain, sort_keys=False, default_flow_style=False, width=10_000, allow_unicode=True)


class _Faithful(yaml.SafeLoader):
    """YAML whose dates stay the text that they are for kubectl."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own way
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class _Plain(yaml.SafeDumper):
    """YAML without anchors: what occurs twice is written twice."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - PyYAML's signature
        """Say that nothing is to be an alias."""
        return True
