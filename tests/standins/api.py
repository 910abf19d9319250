"""The stand-in API server: objects in the real etcd, so that several servers show the same, each with its revision."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import tempfile
import time
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Object = dict[str, Any]
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
    "discovery.k8s.io/v1": {"endpointslices": ("EndpointSlice", True)},
    "rbac.authorization.k8s.io/v1": {
        "clusterroles": ("ClusterRole", False),
        "clusterrolebindings": ("ClusterRoleBinding", False),
        "roles": ("Role", True),
        "rolebindings": ("RoleBinding", True),
    },
}
"""What it knows: API version → resource → kind, and whether it is in namespaces."""


def self_signed() -> ssl.SSLContext:
    """Return a server's context with a certificate of its own, as kube-* make one where none is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        key, certificate = f"{folder}/key", f"{folder}/crt"
        make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        subprocess.run([*make, "-keyout", key, "-out", certificate, "-subj", "/CN=localhost"], check=True)
        context.load_cert_chain(certificate, key)
    return context


class Etcd:
    """etcd's v3 API by its JSON gateway."""

    def __init__(self, options: Mapping[str, str]) -> None:
        self._servers = options["etcd-servers"].split(",")
        self._tls: ssl.SSLContext | None = None
        if "etcd-cafile" in options:
            self._tls = ssl.create_default_context(cafile=options["etcd-cafile"])
            self._tls.load_cert_chain(options["etcd-certfile"], options["etcd-keyfile"])

    def call(self, what: str, body: Object) -> Object:
        """Return the answer. Raises OSError."""
        request = urllib.request.Request(f"{self._servers[0]}/v3/kv/{what}", json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=3, context=self._tls) as answer:
            found: Object = json.load(answer)
            return found

    def below(self, key: str, *, exactly: bool = False) -> list[Object]:
        """Return the objects at a key, or at all that begin with it."""
        end = key[:-1] + chr(ord(key[-1]) + 1)
        answer = self.call("range", {"key": _b64(key)} | ({} if exactly else {"range_end": _b64(end)}))
        return [_with_revision(json.loads(base64.b64decode(kv["value"])), kv) for kv in answer.get("kvs", [])]

    def write(self, key: str, item: Object, revision: str) -> bool:
        """Write an object if the key is still at `revision`, 0 for one that is not there."""
        compare = {"key": _b64(key), "target": "MOD", "modRevision": revision}
        put = {"requestPut": {"key": _b64(key), "value": _b64(json.dumps(item))}}
        return bool(self.call("txn", {"compare": [compare], "success": [put]}).get("succeeded"))


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _with_revision(item: Object, kv: Object) -> Object:
    item["metadata"]["resourceVersion"] = kv["mod_revision"]
    return item


def merged(old: Any, patch: Any) -> Any:
    """Return what a merge patch makes of a value (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def serve(options: Mapping[str, str], version: str, up: Callable[[], None]) -> None:
    """Be an API server until it is killed."""
    etcd = Etcd(options)
    while not _answers(etcd):
        time.sleep(1)
    services = IPv4Network(options["service-cluster-ip-range"])
    for item in (
        *({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in ("default", "kube-system")),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kubernetes", "namespace": "default"},
            "spec": {"clusterIP": str(services[1]), "ports": [{"name": "https", "port": 443}]},
        },
    ):
        meta = item["metadata"]
        key = f"{PREFIX}v1/{item['kind'].lower()}s/{meta.get('namespace', '-')}/{meta['name']}"  # type: ignore[attr-defined, index]
        etcd.write(key, item, "0")

    class Handler(_Handler):
        store = etcd
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


def _answers(etcd: Etcd) -> bool:
    try:
        etcd.below("x", exactly=True)
    except OSError as error:
        print(f"etcd: {error}", flush=True)  # noqa: T201 - its log
        return False
    return True


class _Handler(BaseHTTPRequestHandler):
    store: Etcd
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

    def _do(self, method: str) -> None:
        size = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(size)) if size else None
        path = self.path.partition("?")[0].strip("/")
        try:
            if path in {"readyz", "livez", "healthz"}:
                if path == "readyz":
                    self.store.below("x", exactly=True)
                self._send(200, "ok")
            elif path == "version":
                major, minor, _ = self.release.split(".")
                self._send(200, {"major": major, "minor": minor, "gitVersion": f"v{self.release}"})
            else:
                self._answer(method, path, body)
        except OSError as error:
            self._send(500, {"kind": "Status", "status": "Failure", "message": f"etcd: {error}"})

    def _answer(self, method: str, path: str, body: Any) -> None:
        parts = path.split("/")
        version = parts[1] if parts[0] == "api" else "/".join(parts[1:3])
        rest = parts[2 if parts[0] == "api" else 3 :]
        namespace = "-"
        if len(rest) > 2 and rest[0] == "namespaces":
            namespace, rest = rest[1], rest[2:]
        resource, name = (rest[0] if rest else ""), (rest[1] if len(rest) > 1 else "")
        if resource not in KINDS.get(version, {}):
            self._missing(path)
            return
        kind, namespaced = KINDS[version][resource]
        place = f"{PREFIX}{version}/{resource}/" + (f"{namespace}/" if not namespaced or namespace != "-" else "")
        if method == "GET" and not name:
            items = self.store.below(place)
            self._send(200, {"apiVersion": version, "kind": f"{kind}List", "metadata": {}, "items": items})
        elif method == "POST":
            self._write(f"{place}{body['metadata']['name']}", None, body, 201)
        else:
            found = self.store.below(f"{place}{name}", exactly=True)
            if not found:
                self._missing(path)
            elif method == "GET":
                self._send(200, found[0])
            elif method == "PUT" and body["metadata"].get("resourceVersion") != found[0]["metadata"]["resourceVersion"]:
                self._conflict(path)
            else:
                self._write(f"{place}{name}", found[0], body if method == "PUT" else merged(found[0], body), 200)

    def _write(self, key: str, old: Object | None, item: Object, status: int) -> None:
        metadata = item["metadata"]
        revision = str(old["metadata"]["resourceVersion"]) if old else "0"
        metadata["uid"] = old["metadata"]["uid"] if old else str(uuid.uuid4())
        metadata.pop("resourceVersion", None)
        if self.store.write(key, item, revision):
            self._send(status, self.store.below(key, exactly=True)[0])
        else:
            self._conflict(key)

    def _missing(self, what: str) -> None:
        self._send(404, {"kind": "Status", "status": "Failure", "reason": "NotFound", "message": f"no {what}"})

    def _conflict(self, what: str) -> None:
        self._send(409, {"kind": "Status", "status": "Failure", "reason": "Conflict", "message": f"{what} has changed"})

    def _send(self, status: int, answer: Object | str) -> None:
        text = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
