"""One program with the names of several, for machines without Python: which one it is, its name says.

Only the standard library is used, so that it is small. The options of each program are given to `main` by the text that
the build makes.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.standins import api, flannel, fleet, fleetctl, golang, locksmith

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_FILES = ("file", "cert", "key", "certificate", "kubeconfig", "config", "cafile", "certfile", "keyfile")
_PORTS = {"kube-controller-manager": (10257, True), "kube-scheduler": (10259, True)}
_RENEWAL = 2.0  # seconds between two renewals of a lease, as kube-* have it


class Usage(SystemExit):
    """The real program would not start with this."""

    def __init__(self, message: str) -> None:
        print(f"Error: {message}", file=sys.stderr, flush=True)  # noqa: T201 - its log
        super().__init__(1)


def main(programs: Mapping[str, tuple[str, Sequence[str]]]) -> None:
    """Be the program of this name. `programs` has of each its version, and lines that name its options."""
    name, words = Path(sys.argv[0]).name, sys.argv[1:]
    version, lines = programs[name]
    if name == "flanneld":
        flannel.main(words, version, golang.kinds(lines), notify)
    elif name == "fleetd":
        fleet.main(words, version, golang.kinds(lines))
    elif name == "fleetctl":
        fleetctl.main(words, version, lines)
    elif name == "locksmithctl":
        locksmith.main(words, version, golang.kinds(lines))
    else:
        kubernetes(name, version, parse(name, words, frozenset(lines)))


def kubernetes(name: str, version: str, options: Mapping[str, str]) -> None:
    """Be a program of Kubernetes."""
    if "version" in options:
        print(f"Kubernetes v{version}")  # noqa: T201 - its answer
        return
    for option, value in options.items():
        if option.rpartition("-")[2] in _FILES and value.startswith("/"):
            read(option, value)
    if name == "kube-apiserver":
        api.serve(options, version, notify)
    elif name == "kubelet":
        kubelet(options, version)
    elif name == "kube-proxy":
        proxy(options)
    else:
        lead(name, options)


def parse(name: str, words: list[str], known: frozenset[str]) -> dict[str, str]:
    """Return the options. Raises Usage on what the real program does not know."""
    options: dict[str, str] = {}
    for word in words:
        option, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or option not in known:
            raise Usage(f"{name}: unknown flag: {word.partition('=')[0]}")
        options[option] = value if equals else "true"
    return options


def read(option: str, path: str) -> str:
    """Return the text of a file that an option names. Raises Usage where it cannot be read or says nothing."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise Usage(f"--{option}: {error}") from None
    if not text.strip():
        raise Usage(f"--{option}: {path} is empty")
    return text


def notify() -> None:
    """Tell systemd that the service is up (sd_notify(3))."""
    place = os.environ.get("NOTIFY_SOCKET")
    if place:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stream:
            stream.sendto(b"READY=1", place.replace("@", "\0", 1))


class Client:
    """The API, as the user of a kubeconfig whose certificate and key have to fit each other and its authority."""

    def __init__(self, kubeconfig: str) -> None:
        config = json.loads(read("kubeconfig", kubeconfig))
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.server: str = cluster["server"]
        self._tls = ssl.create_default_context(cafile=cluster["certificate-authority"])
        self._tls.load_cert_chain(user["client-certificate"], user["client-key"])

    def ask(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        """Return the answer; None where there is no such object. Raises OSError where the API does not answer so."""
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.server + path, data, {"Content-Type": kind}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=5, context=self._tls) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise


def healthz(port: int, *, tls: bool = False) -> None:
    """Answer `ok` at /healthz on this machine, in a thread of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path.startswith(("/healthz", "/livez", "/proxyMode")) else 404)
            self.end_headers()
            self.wfile.write(b"iptables" if self.path == "/proxyMode" else b"ok")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the library
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    if tls:
        server.socket = api.self_signed().wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def now() -> str:
    """Return the time as a lease has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())


def lead(name: str, options: Mapping[str, str]) -> None:
    """Hold the lease of this name, or wait until who holds it has not renewed it for its duration."""
    port, tls = _PORTS[name]
    client, path = Client(options["kubeconfig"]), "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
    me = f"{socket.gethostname()}_{os.getpid()}"
    healthz(port, tls=tls)
    while True:
        try:
            lease = client.ask("GET", f"{path}/{name}")
            spec = {"holderIdentity": me, "leaseDurationSeconds": 15, "renewTime": now()}
            if lease is None:
                meta = {"name": name, "namespace": "kube-system"}
                body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta}
                client.ask("POST", path, body | {"spec": spec})
            elif lease["spec"]["holderIdentity"] == me or lease["spec"]["renewTime"] < _ago(15):
                client.ask("PUT", f"{path}/{name}", lease | {"spec": spec})
        except OSError as error:
            print(f"the lease: {error}", flush=True)  # noqa: T201 - its log
        time.sleep(_RENEWAL)


def _ago(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(time.time() - seconds))


def kubelet(options: Mapping[str, str], version: str) -> None:
    """Register the node, and say that it is Ready as long as containerd answers."""
    client = Client(options["kubeconfig"])
    name, address = options["hostname-override"], options["node-ip"]
    config = json.loads(read("config", options["config"]))
    for file in (config["tlsCertFile"], config["tlsPrivateKeyFile"], config["authentication"]["x509"]["clientCAFile"]):
        read("config", file)
    healthz(10248)
    notify()
    labels = dict(pair.split("=", 1) for pair in options.get("node-labels", "").split(",") if pair)
    while True:
        runs = subprocess.run(["ctr", "version"], check=False, capture_output=True, timeout=20).returncode == 0
        ready = {"type": "Ready", "status": str(runs), "message": "containerd answers" if runs else "no containerd"}
        status = {
            "conditions": [ready | {"lastHeartbeatTime": now()}],
            "addresses": [{"type": "InternalIP", "address": address}],
            "nodeInfo": {"kubeletVersion": f"v{version}"},
        }
        try:
            if client.ask("GET", f"/api/v1/nodes/{name}") is None:
                meta = {"name": name, "labels": labels | {"kubernetes.io/hostname": name}}
                client.ask("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": meta})
            client.ask("PATCH", f"/api/v1/nodes/{name}", {"status": status}, "application/merge-patch+json")
        except OSError as error:
            print(f"the node: {error}", flush=True)  # noqa: T201 - its log
        time.sleep(_RENEWAL)


def proxy(options: Mapping[str, str]) -> None:
    """Write the rule of the API's own service, as kube-proxy does in the mode iptables, and keep being asked."""
    config = json.loads(read("config", options["config"])) if "config" in options else {}
    kubeconfig = config.get("clientConnection", {}).get("kubeconfig") or options["kubeconfig"]
    client = Client(kubeconfig)
    done = False
    healthz(10256)
    healthz(10249)
    while True:
        try:
            found = client.ask("GET", "/api/v1/namespaces/default/services/kubernetes")
            if found and not done:
                rule = ["-d", found["spec"]["clusterIP"] + "/32", "-p", "tcp", "--dport", "443", "-j", "ACCEPT"]
                comment = ["-m", "comment", "--comment", "default/kubernetes:https cluster IP"]
                for command in (["-N", "KUBE-SERVICES"], ["-A", "KUBE-SERVICES", *comment, *rule]):
                    subprocess.run(["iptables", "-w", "-t", "nat", *command], check=False)
                done = True
        except OSError as error:
            print(f"the API: {error}", flush=True)  # noqa: T201 - its log
        time.sleep(_RENEWAL)
