"""How the API server is reached: from inside a pod, by a kubeconfig, or at a plain URL.

Sources: https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/ and
https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/.
"""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from coupler.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

_UNSUPPORTED = {
    "exec": "programs that fetch credentials (exec plugins) are not supported",
    "auth-provider": "auth-provider plugins are not supported",
    "username": "names with passwords are not supported",
    "as": "impersonation is not supported",
}
_INSTEAD = "use a token, a tokenFile or a client certificate; a service account's token serves well"


@dataclass(frozen=True, slots=True)
class Access:
    """Where the API server is, and what proves who we are; `files` are those that it was read from.

    `authority`, `certificate` and `key` are PEM. A `server_name` is what the server's certificate is for, where that
    is not the host of the URL.
    """

    server: str
    token: str | None = field(default=None, repr=False)
    authority: bytes | None = field(default=None, repr=False)
    certificate: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)
    server_name: str | None = None
    files: tuple[Path, ...] = ()


def plain(url: str) -> Access:
    """Return the access to a server that asks nobody who they are, `http://host:8080`."""
    return Access(_server(url, "the URL of the API server"))


def in_cluster(folder: Path = SERVICE_ACCOUNT, environment: Mapping[str, str] = os.environ) -> Access:
    """Return the access of a pod, by its service account. Raises ConfigurationError outside of a pod."""
    host, port = (environment.get(f"KUBERNETES_SERVICE_{part}", "") for part in ("HOST", "PORT"))
    if not (host and port):
        raise ConfigurationError(
            "there is no API server to be found in the environment",
            "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set, so this is no pod",
            "outside of a pod name a kubeconfig or a URL",
        )
    token, authority = folder / "token", folder / "ca.crt"
    address = f"[{host}]" if ":" in host else host
    return Access(
        f"https://{address}:{port}",
        token=_token(_read(token, "the service account's token"), f"{token}"),
        authority=_read(authority, "the cluster's certificate authority"),
        files=(token, authority),
    )


def kubeconfig(path: Path, context: str | None = None) -> Access:
    """Return the access that `context`, else the current one, of the kubeconfig at `path` describes.

    Raises ConfigurationError, which names the file and the key, where it cannot be used. Paths in it are relative to
    its folder.
    """
    return _Kubeconfig(path).access(context)


class _Kubeconfig:
    def __init__(self, path: Path) -> None:
        self.path, self.files = path, [path]
        try:
            tree = yaml.safe_load(_read(path, "the kubeconfig"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise self._wrong("", f"is not YAML: {error}") from error
        if not isinstance(tree, dict):
            raise self._wrong("", "is no kubeconfig: a mapping is expected")
        self.tree = tree

    def access(self, context: str | None) -> Access:
        name = context or self._text(self.tree, "current-context", "")
        if not name:
            raise self._wrong("current-context", "is not set", "name the context to use")
        chosen, place = self._named("contexts", "context", name)
        cluster, cluster_place = self._named("clusters", "cluster", self._text(chosen, "cluster", place))
        user_name = self._text(chosen, "user", place)
        user, user_place = self._named("users", "user", user_name) if user_name else ({}, place)
        self._refuse(cluster, cluster_place, user, user_place)
        authority = self._pem(cluster, "certificate-authority", cluster_place)
        certificate, key = (self._pem(user, name, user_place) for name in ("client-certificate", "client-key"))
        if (certificate is None) != (key is None):
            missing = "client-key" if key is None else "client-certificate"
            raise self._wrong(f"{user_place}.{missing}", "is missing: a certificate and its key come together")
        return Access(
            self._url(cluster, cluster_place),
            self._user_token(user, user_place),
            authority,
            certificate,
            key,
            self._text(cluster, "tls-server-name", cluster_place) or None,
            tuple(self.files),
        )

    def _refuse(self, cluster: dict[str, Any], place: str, user: dict[str, Any], user_place: str) -> None:
        if cluster.get("insecure-skip-tls-verify"):
            raise self._wrong(
                f"{place}.insecure-skip-tls-verify",
                "is refused: whoever answers could send the traffic anywhere",
                "give the cluster's certificate-authority, and tls-server-name where the names differ",
            )
        if cluster.get("proxy-url"):
            raise self._wrong(f"{place}.proxy-url", "proxies are not supported")
        for key, why in _UNSUPPORTED.items():
            if user.get(key):
                raise self._wrong(f"{user_place}.{key}", why, _INSTEAD)

    def _url(self, cluster: dict[str, Any], place: str) -> str:
        return _server(self._text(cluster, "server", place), f"{self.path}: {place}.server")

    def _user_token(self, user: dict[str, Any], place: str) -> str | None:
        """Return the token; as kubectl has it, a file goes before the text."""
        if name := self._text(user, "tokenFile", place):
            where = f"{self.path}: {place}.tokenFile"
            return _token(self._file(name, where), where)
        return self._text(user, "token", place) or None

    def _pem(self, entry: dict[str, Any], key: str, place: str) -> bytes | None:
        """Return what `key-data` holds, else what the file at `key` holds; as kubectl has it, data goes first."""
        if data := self._text(entry, f"{key}-data", place):
            try:
                return base64.b64decode("".join(data.split()), validate=True)
            except (binascii.Error, ValueError) as error:
                raise self._wrong(f"{place}.{key}-data", f"is not base64: {error}") from error
        name = self._text(entry, key, place)
        return self._file(name, f"{self.path}: {place}.{key}") if name else None

    def _file(self, name: str, where: str) -> bytes:
        path = self.path.parent / name
        self.files.append(path)
        return _read(path, where)

    def _named(self, group: str, key: str, name: str) -> tuple[dict[str, Any], str]:
        """Return what the list `group` has under `name`, and how to say where that is."""
        entries = self.tree.get(group) or []
        if not isinstance(entries, list):
            raise self._wrong(group, "is no list")
        for entry in entries:
            if isinstance(entry, dict) and entry.get("name") == name:
                place = f"{group}[{name}].{key}"
                found = entry.get(key) or {}
                if not isinstance(found, dict):
                    raise self._wrong(place, "is no mapping")
                return found, place
        known = ", ".join(str(entry.get("name")) for entry in entries if isinstance(entry, dict)) or "nothing"
        raise self._wrong(group, f"has no {name!r}; it has {known}")

    def _text(self, entry: dict[str, Any], key: str, place: str) -> str:
        value = entry.get(key)
        if value is not None and not isinstance(value, str):
            raise self._wrong(f"{place}.{key}".lstrip("."), f"is no text: {value!r}", "put it in quotes")
        return value or ""

    def _wrong(self, key: str, why: str, next_step: str | None = None) -> ConfigurationError:
        return ConfigurationError(f"{self.path}: {key}: {why}" if key else f"{self.path}: {why}", None, next_step)


def _server(url: str, where: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(f"{where}: {url!r} is no URL", None, "write it as https://HOST:PORT")
    return url.rstrip("/")


def _token(content: bytes, where: str) -> str:
    token = content.decode("ascii", "replace").strip()
    if not token or not token.isprintable() or "\ufffd" in token:
        raise ConfigurationError(f"{where}: there is no token in it")
    return token


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{what}: {path} cannot be read", error.strerror or str(error)) from error
