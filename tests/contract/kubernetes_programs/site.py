"""A control plane of real programs on this machine, started with exactly what Coupler gives them."""

from __future__ import annotations

import datetime as dt
import json
import shlex
import ssl
import subprocess
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from tests.contract.traffic import eventually, free_port

from coupler.model import Cluster, load_cluster
from coupler.model.rules.kubernetes import SECTIONS
from coupler.render.kubernetes import derivations, files
from coupler.workflows.certificates import Store

if TYPE_CHECKING:
    from pathlib import Path

    from tests.contract.etcd import Etcd
    from tests.contract.kubernetes_programs.programs import Release

CLUSTER = """\
version: 1
name: demo
git: {repository: "git://10.0.0.5/demo.git"}
etcd: {tls: false}
kubernetes: {version: VERSION}
nodes: [{name: node-1, address: 10.0.0.11, roles: [control, worker]}]
"""


def cluster_of(folder: Path, version: str) -> Cluster:
    """Return a cluster of one node with this version of Kubernetes."""
    (folder / "cluster.yaml").write_text(CLUSTER.replace("VERSION", version))
    return load_cluster(folder / "cluster.yaml").cluster


def given(cluster: Cluster, program: str) -> dict[str, str]:
    """Return the options that Coupler gives a program: name → value."""
    section = "api_server" if program == "kube-apiserver" else SECTIONS[program]
    words = [shlex.split(word)[0] for word in derivations(cluster)[section]()]
    return dict(word.removeprefix("--").split("=", 1) for word in words)


class Site:
    """etcd, an API server and its companions on loopback, below a folder that stands for a node's root."""

    def __init__(self, folder: Path, release: Release, etcd: Etcd) -> None:
        self._folder, self._release = folder, release
        self._cluster = cluster_of(folder, release.version)
        self._ports = {name: free_port() for name in release.programs}
        self._changes = {
            "kube-apiserver": {"etcd-servers": etcd.url, "bind-address": "127.0.0.1", "advertise-address": "10.0.0.11"}
        }
        self._running: list[subprocess.Popen[bytes]] = []
        self._write()

    def _write(self) -> None:
        """Write what a control node has: certificates, kubeconfigs, audit policy, and how secrets are encrypted."""
        store = Store(self._folder / "pki", self._cluster)
        store.make(dt.datetime.now(dt.UTC))
        held = {f"/{path}": content for path, (content, _) in store.files_for(self._cluster.nodes[0]).items()}
        held |= {path: text.encode() for path, text in files(self._cluster).items()}
        for path, content in held.items():
            target = self._folder / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self._here(content.decode()).encode())

    def _here(self, text: str) -> str:
        """Return a text with the paths and the API server of this site."""
        text = text.replace("/etc/coupler/", f"{self._folder}/etc/coupler/")
        text = text.replace("/var/log/", f"{self._folder}/var/log/")
        return text.replace("https://127.0.0.1:6443", f"https://127.0.0.1:{self._ports['kube-apiserver']}")

    def start(self, program: str) -> None:
        """Start a program with what its unit gives it, at another port."""
        options = given(self._cluster, program) | {"secure-port": str(self._ports[program])}
        options |= self._changes.get(program, {})
        argv = [self._release.programs[program], *(f"--{name}={self._here(value)}" for name, value in options.items())]
        (self._folder / "var/log/kubernetes").mkdir(parents=True, exist_ok=True)
        with (self._folder / f"{program}.log").open("wb") as log:
            self._running.append(subprocess.Popen(argv, stdout=log, stderr=log))
        eventually(lambda: self._is_well(program), f"{program} is not well: see {log.name}", within=90)

    def _is_well(self, program: str) -> bool:
        try:
            return self.ask(program, "/healthz", "kubelet")[0] == 200
        except OSError:
            return False

    def ask(self, program: str, path: str, user: str | None, body: object = None) -> tuple[int, str]:
        """Return status and body of a request with a user's certificate. Raises OSError where nobody answers."""
        pki = self._folder / "etc/coupler/pki/kubernetes"
        context = ssl.create_default_context(cafile=pki / "ca.crt")
        if program != "kube-apiserver":  # they make a certificate for themselves
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if user:
            folder = self._folder / "pki/kubernetes" if user == "admin" else pki
            context.load_cert_chain(folder / f"{user}.crt", folder / f"{user}.key")
        url = f"https://127.0.0.1:{self._ports[program]}{path}"
        data = json.dumps(body).encode() if body else None
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, context=context, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def audit_log(self) -> str:
        """Return what the API server has logged."""
        return (self._folder / "var/log/kubernetes/audit.log").read_text()

    def stop(self) -> None:
        """Stop everything that was started."""
        for process in reversed(self._running):
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
