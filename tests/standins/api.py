"""The stand-in API server: objects in the real etcd, so that several servers show the same, each with its revision.

It has what a real kubectl asks for: discovery, where a parameter may be given (OpenAPI), and server-side apply. It
knows no schemas, so it refuses no field.
"""

from __future__ import annotations

import json
import ssl
import subprocess
import tempfile
import time
import urllib.parse
import uuid
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any

from tests.standins.apply import applied, merged
from tests.standins.etcd import Credentials, Etcd, Object, b64

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PREFIX = "/registry/"
KINDS = {
    "v1": {
        "namespaces": ("Namespace", False),
        "nodes": ("Node", False),
        "services": ("Service", True),
        "configmaps": ("ConfigMap", True),
        "serviceaccounts": ("ServiceAccount", True),
        "pods": ("Pod", True),
    },
    "apps/v1": {"deployments": ("Deployment", True)},
    "policy/v1": {"poddisruptionbudgets": ("PodDisruptionBudget", True)},
    "coordination.k8s.io/v1": {"leases": ("Lease", True)},
    "networking.k8s.io/v1": {"ingresses": ("Ingress", True), "ingressclasses": ("IngressClass", False)},
    "discovery.k8s.io/v1": {"endpointslices": ("EndpointSlice", True)},
    "rbac.authorization.k8s.io/v1": {
        "clusterroles": ("ClusterRole", False),
        "clusterrolebindings": ("ClusterRoleBinding", False),
        "roles": ("Role", True),
        "rolebindings": ("RoleBinding", True),
    },
}
"""What it knows: API version → resource → kind, and whether it is in namespaces."""
NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
_PAUSE = 1.0  # seconds between two looks for those who watch
_INITIAL_END = "k8s.io/initial-events-end"
"""The annotation of the bookmark that ends what was there already (kubernetes.io, API concepts, streaming lists)."""
_JSON = "application/json"
_APPLY = "application/apply-patch+yaml"
_PARAMETERS = [{"name": name, "in": "query"} for name in ("dryRun", "fieldManager", "fieldValidation", "force")]


def self_signed() -> ssl.SSLContext:
    """Return a server's context with a certificate of its own, as kube-* make one where none is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        key, certificate = f"{folder}/key", f"{folder}/crt"
        make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        subprocess.run([*make, "-keyout", key, "-out", certificate, "-subj", "/CN=localhost"], check=True)
        context.load_cert_chain(certificate, key)
    return context


class Store:
    """The objects, under keys of etcd's v3 API."""

    def __init__(self, options: Mapping[str, str]) -> None:
        files = ("etcd-cafile", "etcd-certfile", "etcd-keyfile")
        credentials = Credentials(*(options[file] for file in files if file in options))
        self._etcd = Etcd(options["etcd-servers"].split(","), credentials)

    def below(self, key: str, revision: str = "0") -> tuple[list[Object], str]:
        """Return the objects at all keys that begin so, now or at a revision, and the revision that etcd has now."""
        found, now = self._etcd.range_at(key, revision)
        return [_with_revision(value, kv) for _, value, kv in found], now

    def at(self, key: str) -> Object | None:
        """Return the object at a key."""
        return next((_with_revision(value, kv) for found, value, kv in self._etcd.range(key) if found == key), None)

    def write(self, key: str, item: Object, revision: str) -> bool:
        """Write an object if the key is still at `revision`, 0 for one that is not there."""
        return self._change(key, revision, {"requestPut": {"key": b64(key), "value": b64(json.dumps(item))}})

    def remove(self, key: str, revision: str) -> bool:
        """Remove an object if the key is still at `revision`."""
        return self._change(key, revision, {"requestDeleteRange": {"key": b64(key)}})

    def _change(self, key: str, revision: str, operation: Object) -> bool:
        compare = {"key": b64(key), "target": "MOD", "modRevision": revision}
        return bool(self._etcd.v3("kv/txn", {"compare": [compare], "success": [operation]}).get("succeeded"))


def _with_revision(value: str, kv: Object) -> Object:
    item: Object = json.loads(value)
    item["metadata"]["resourceVersion"] = kv["mod_revision"]
    return item


def serve(options: Mapping[str, str], version: str, up: Callable[[], None]) -> None:
    """Be an API server until it is killed."""
    objects = Store(options)
    while not _answers(objects):
        time.sleep(1)
    services = IPv4Network(options["service-cluster-ip-range"])
    for item in (
        *({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in NAMESPACES),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kubernetes", "namespace": "default"},
            "spec": {"clusterIP": str(services[1]), "ports": [{"name": "https", "port": 443}]},
        },
    ):
        meta: Object = item["metadata"]  # type: ignore[assignment]
        meta["uid"] = str(uuid.uuid4())
        target = Target("v1", f"{item['kind']}s".lower(), meta.get("namespace", ""), meta["name"])
        objects.write(target.key, item, "0")

    class Handler(_Handler):
        store = objects
        release = version

    server = ThreadingHTTPServer((options.get("bind-address", "0.0.0.0"), int(options["secure-port"])), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(options["tls-cert-file"], options["tls-private-key-file"])
    context.load_verify_locations(options["client-ca-file"])
    context.verify_mode = ssl.CERT_REQUIRED
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    up()
    server.serve_forever()


def _answers(store: Store) -> bool:
    try:
        store.at("x")
    except OSError as error:
        print(f"etcd: {error}", flush=True)  # noqa: T201 - its log
        return False
    return True


@dataclass(frozen=True)
class Target:
    """What a path names: a collection or, with a name, an object."""

    version: str
    resource: str
    namespace: str
    name: str

    @classmethod
    def of(cls, path: str) -> Target | None:
        """Return what a path names, None for one that this server does not know."""
        parts = path.split("/")
        version, rest = (parts[1:2], parts[2:]) if parts[0] == "api" else (parts[1:3], parts[3:])
        namespace = ""
        if len(rest) > 2 and rest[0] == "namespaces":
            namespace, rest = rest[1], rest[2:]
        if len(rest) not in {1, 2} or rest[0] not in KINDS.get("/".join(version), {}):
            return None
        return cls("/".join(version), rest[0], namespace, rest[1] if len(rest) > 1 else "")

    @property
    def kind(self) -> str:
        """The kind of these objects."""
        return KINDS[self.version][self.resource][0]

    @property
    def key(self) -> str:
        """Where it is in etcd, or what the keys of the collection begin with."""
        namespaced = KINDS[self.version][self.resource][1]
        place = f"{PREFIX}{self.version}/{self.resource}/"
        return place + (f"{self.namespace}/" if namespaced and self.namespace else "") + self.name

    @property
    def called(self) -> str:
        """What an error calls it."""
        group = self.version.partition("/")[0] if "/" in self.version else ""
        return f'{self.resource}{group and "."}{group} "{self.name}"'


def discovery(path: str) -> Object | None:
    """Return what the server says of what it has, None for another path (kubernetes.io, API discovery)."""
    if path == "api":
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
    if path == "apis":
        groups = [
            {"name": version.partition("/")[0], "versions": [entry], "preferredVersion": entry}
            for version in KINDS
            if "/" in version
            for entry in [{"groupVersion": version, "version": version.partition("/")[2]}]
        ]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    if path == "openapi/v3":
        return {"paths": {_root(version): {"serverRelativeURL": f"/openapi/v3/{_root(version)}"} for version in KINDS}}
    for version, resources in KINDS.items():
        if path == _root(version):
            verbs = ["create", "delete", "get", "list", "patch", "update"]
            found = [
                {"name": name, "singularName": kind.lower(), "namespaced": namespaced, "kind": kind, "verbs": verbs}
                for name, (kind, namespaced) in resources.items()
            ]
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": found}
        if path == f"openapi/v3/{_root(version)}":
            return _openapi(version)
    return None


def _root(version: str) -> str:
    return f"apis/{version}" if "/" in version else f"api/{version}"


def _openapi(version: str) -> Object:
    group, _, short = version.rpartition("/")
    paths = {}
    for name, (kind, namespaced) in KINDS[version].items():
        mark = {"x-kubernetes-group-version-kind": {"group": group, "version": short, "kind": kind}}
        place = f"/{_root(version)}/{'namespaces/{namespace}/' if namespaced else ''}{name}/{{name}}"
        paths[place] = {"patch": {"parameters": _PARAMETERS, "responses": {}, **mark}}
    return {"openapi": "3.0.0", "info": {"title": "stand-in", "version": "1"}, "paths": paths}


def selected(items: list[Object], query: Mapping[str, str]) -> list[Object]:
    """Return the objects that a request's selectors take: labels with = or by name alone, and the name as field."""
    for selector in filter(None, query.get("labelSelector", "").split(",")):
        name, equals, value = selector.partition("=")
        labels = [(item, item["metadata"].get("labels", {})) for item in items]
        items = [item for item, has in labels if name in has and (not equals or has[name] == value.lstrip("="))]
    for selector in filter(None, query.get("fieldSelector", "").split(",")):
        name = selector.removeprefix("metadata.name=")
        items = [item for item in items if item["metadata"]["name"] == name]
    return items


def changes(before: list[Object], after: list[Object]) -> Iterator[Object]:
    """Yield the events by which the objects of a watch became others."""
    old, new = ({_name(item): item for item in items} for items in (before, after))
    for name, item in new.items():
        if name not in old:
            yield {"type": "ADDED", "object": item}
        elif item["metadata"]["resourceVersion"] != old[name]["metadata"]["resourceVersion"]:
            yield {"type": "MODIFIED", "object": item}
    for name in old.keys() - new.keys():
        yield {"type": "DELETED", "object": old[name]}


def _name(item: Object) -> tuple[str, str]:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


class _Handler(BaseHTTPRequestHandler):
    store: Store
    release: str
    protocol_version = "HTTP/1.1"
    timeout = 60

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the library
        pass

    def do_GET(self) -> None:
        self._do("GET")

    def do_POST(self) -> None:
        self._do("POST")

    def do_PUT(self) -> None:
        self._do("PUT")

    def do_PATCH(self) -> None:
        self._do("PATCH")

    def do_DELETE(self) -> None:
        self._do("DELETE")

    def _do(self, method: str) -> None:
        size = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(size)) if size else None
        path, _, query = self.path.partition("?")
        try:
            self._answer(method, path.strip("/"), dict(urllib.parse.parse_qsl(query)), body)
        except OSError as error:
            self._refuse(500, "InternalError", f"etcd: {error}")

    def _answer(self, method: str, path: str, query: Mapping[str, str], body: Any) -> None:
        target, known = Target.of(path), discovery(path)
        if path in {"readyz", "livez", "healthz"}:
            if path == "readyz":
                self.store.at("x")
            self._send(200, "ok")
        elif path == "version":
            major, minor, _ = self.release.split(".")
            self._send(200, {"major": major, "minor": minor, "gitVersion": f"v{self.release}"})
        elif path == "openapi/v2":
            self._send(200, "")  # as protobuf: a document without anything in it
        elif known:
            self._send(200, known)
        elif not target:
            self._refuse(404, "NotFound", "the server could not find the requested resource")
        elif method == "GET" and not target.name and query.get("watch") in {"1", "true"}:
            self._watch(target, query)
        elif method == "GET" and not target.name:
            items, revision = self.store.below(target.key)
            found = {"apiVersion": target.version, "kind": f"{target.kind}List", "items": selected(items, query)}
            self._send(200, {**found, "metadata": {"resourceVersion": revision}})
        elif method == "POST":
            name = body["metadata"]["name"]
            self._write(Target(target.version, target.resource, target.namespace, name), None, body)
        else:
            self._one(method, target, query, body)

    def _watch(self, target: Target, query: Mapping[str, str]) -> None:
        """Send the changes since a revision for some time, each some moments after it was made."""
        since, deadline = query.get("resourceVersion", "0"), time.monotonic() + int(query.get("timeoutSeconds", 300))
        items = selected(self.store.below(target.key, since)[0], query) if since != "0" else []
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", _JSON)
        self.send_header("Connection", "close")
        self.end_headers()
        marks = [{_INITIAL_END: "true"}] if query.get("sendInitialEvents") == "true" else []
        while time.monotonic() < deadline:
            found, revision = self.store.below(target.key)
            found = selected(found, query)
            events = [*changes(items, found)]
            if query.get("allowWatchBookmarks") == "true":
                metadata = {"resourceVersion": revision, "annotations": marks.pop() if marks else {}}
                item = {"apiVersion": target.version, "kind": target.kind, "metadata": metadata}
                events.append({"type": "BOOKMARK", "object": item})
            try:
                self.wfile.write("".join(f"{json.dumps(event)}\n" for event in events).encode())
            except ConnectionError:
                return  # who watched is gone
            items = found
            time.sleep(_PAUSE)

    def _one(self, method: str, target: Target, query: Mapping[str, str], body: Any) -> None:
        found = self.store.at(target.key)
        if method == "PATCH" and self.headers["Content-Type"].startswith(_APPLY):
            self._apply(target, query, found, body)
        elif not found:
            self._refuse(404, "NotFound", f"{target.called} not found")
        elif method == "GET":
            self._send(200, found)
        elif method == "DELETE":
            self.store.remove(target.key, str(found["metadata"]["resourceVersion"]))
            self._send(200, {"kind": "Status", "apiVersion": "v1", "status": "Success"})
        elif method == "PUT" and body["metadata"].get("resourceVersion") != found["metadata"]["resourceVersion"]:
            self._conflict(target)
        else:
            self._write(target, found, body if method == "PUT" else merged(found, body))

    def _apply(self, target: Target, query: Mapping[str, str], found: Object | None, body: Object) -> None:
        if "fieldManager" not in query:
            self._refuse(422, "Invalid", "metadata.fieldManager: Required value: is required for apply patch")
        else:
            self._write(target, found, applied(found or {}, body, query["fieldManager"]))

    def _write(self, target: Target, old: Object | None, item: Object) -> None:
        home = Target("v1", "namespaces", "", target.namespace)
        if KINDS[target.version][target.resource][1] and not self.store.at(home.key):
            self._refuse(404, "NotFound", f"{home.called} not found")
            return
        metadata = dict(item["metadata"])
        item = {**item, "metadata": metadata}
        if target.namespace:
            metadata.setdefault("namespace", target.namespace)
        uid = old["metadata"]["uid"] if old else str(uuid.uuid4())
        revision = str(old["metadata"]["resourceVersion"]) if old else "0"
        before = metadata.pop("resourceVersion", None)
        if metadata.setdefault("uid", uid) != uid or (old and before not in {None, old["metadata"]["resourceVersion"]}):
            self._conflict(target)
        elif old and item == _without_revision(old):
            self._send(200, old)
        elif self.store.write(target.key, item, revision):
            self._send(200 if old else 201, self.store.at(target.key) or item)
        else:
            self._conflict(target)

    def _conflict(self, target: Target) -> None:
        message = f"Operation cannot be fulfilled on {target.called}: the object has been modified"
        self._refuse(409, "Conflict", message)

    def _refuse(self, code: int, reason: str, message: str) -> None:
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        self._send(code, {**status, "message": message, "reason": reason, "code": code})

    def _send(self, status: int, answer: Object | str) -> None:
        text = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else _JSON)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def _without_revision(item: Object) -> Object:
    metadata = {key: value for key, value in item["metadata"].items() if key != "resourceVersion"}
    return {**item, "metadata": metadata}
