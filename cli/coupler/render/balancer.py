"""What the nodes with the role lb get: units, the balancer's own configuration, and the registrator's.

It travels over SSH, not through git: it is for few nodes, and stands beside credentials. The texts that never change
are files of the role `lb`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from coupler.assets import asset
from coupler.model import Distribution
from coupler.model.services import EVERYWHERE, Balancer
from coupler.render.kubernetes import PKI, kubeconfig

if TYPE_CHECKING:
    from pathlib import Path

    from coupler.model import Cluster
    from coupler.model.services import LoadBalancer

FOLDER = "etc/coupler-lb"
UNITS = "etc/systemd/system"
REGISTRATOR_UNIT = "coupler-registrator.service"
ADDRESS_UNIT = "coupler-address.service"
LISTEN = "127.0.0.1:9102"
"""Where a registrator says how it is."""
ADDRESS_LISTEN = "127.0.0.1:9103"
"""Where the holder of the virtual address says how it is."""
CONTROL = "/run/coupler-registrator/control.sock"
"""Where it is told to drain."""
KUBECONFIG = "etc/coupler/pki/kubernetes/registrator.kubeconfig"
"""Where a node keeps the kubeconfig of another Kubernetes, from its root."""
SEAL_KEY = "etc/coupler/pki/vulcand/seal-key"
"""Where it keeps what vulcand has as its -sealKey."""

_STATE = "/var/lib/coupler-registrator"
_OURS = f"{_STATE}/balancer"
_RUN = "/run/coupler-balancer"
_RUN_CREDENTIALS = "/run/credentials"
_CREDENTIALS = f"{_RUN_CREDENTIALS}/{REGISTRATOR_UNIT}"
_PKI = "/etc/coupler/pki/etcd"
_CONFIGURATION = {Balancer.HAPROXY: "haproxy.cfg", Balancer.NGINX: "nginx.conf"}


def balancer_files(cluster: Cluster, balancer: LoadBalancer) -> dict[str, str]:
    """Return the text of each file by its path from a node's root. All of them may be read by anybody there."""
    files = {
        f"{FOLDER}/registrator.yaml": registrator_yaml(cluster, balancer),
        f"{FOLDER}/programs": _programs(cluster),
        f"{UNITS}/{REGISTRATOR_UNIT}": _static(REGISTRATOR_UNIT),
        f"{UNITS}/{REGISTRATOR_UNIT}.d/10-credentials.conf": _credentials(cluster, balancer),
        "etc/sysusers.d/coupler-lb.conf": _static("coupler-lb.sysusers"),
    }
    if balancer.kubernetes:
        names = f"{_CREDENTIALS}/kubernetes-ca.crt", f"{_CREDENTIALS}/kubernetes"
        files[f"{FOLDER}/kubernetes.kubeconfig"] = kubeconfig(cluster, "registrator", *names)
    if balancer.virtual_address:
        files[f"{FOLDER}/address.yaml"] = address_yaml(cluster, balancer)
        files[f"{UNITS}/{ADDRESS_UNIT}"] = _static(ADDRESS_UNIT)
        files[f"{UNITS}/{ADDRESS_UNIT}.d/10-credentials.conf"] = _drop_in(_etcd_credentials(cluster))
    if balancer.kind in _CONFIGURATION:
        configuration, unit = _CONFIGURATION[balancer.kind], balancer_unit(balancer)
        files |= {f"{FOLDER}/{configuration}": _static(configuration), f"{UNITS}/{unit}": _static(unit)}
    return files


def balancer_unit(balancer: LoadBalancer) -> str:
    """Return the unit that a balancer of this kind runs as on our nodes."""
    return f"coupler-{balancer.kind}.service"


def registrator_yaml(cluster: Cluster, balancer: LoadBalancer) -> str:
    """Return the registrator's configuration file. Of two sources that want the same, Kubernetes counts."""
    sources: dict[str, Any] = {}
    if balancer.kubernetes or balancer.kubeconfig:
        path = f"/{FOLDER}/kubernetes.kubeconfig" if balancer.kubernetes else f"{_CREDENTIALS}/kubeconfig"
        addresses = (
            [balancer.virtual_address] if balancer.virtual_address else [n.address for n in cluster.load_balancers]
        )
        published = [str(address) for address in addresses]
        sources["kubernetes"] = {"kubeconfig": path, "published": published}
    if balancer.announcements:
        sources["announcements"] = {"etcd": _etcd(cluster)}
        if balancer.domain:
            sources["announcements"]["domain"] = balancer.domain
    settings = {
        "sources": sources,
        "balancers": {str(balancer.kind): _moved(cluster, balancer)},
        "listen": LISTEN,
        "control": CONTROL,
        "state": _STATE,
    }
    return _yaml("How the registrator of this node works", settings)


def address_yaml(cluster: Cluster, balancer: LoadBalancer) -> str:
    """Return the configuration of what holds the virtual address."""
    settings = {
        "address": str(balancer.virtual_address),
        "etcd": _etcd(cluster, ADDRESS_UNIT),
        "accepts": list(dict.fromkeys(_asked(bind) for bind in (*balancer.http, *balancer.https))),
        "ready": f"http://{LISTEN}/readyz",
        "listen": ADDRESS_LISTEN,
    }
    return _yaml("When this node has the address that moves", settings)


def _asked(bind: str) -> str:
    """Return where to connect to find out whether this node listens."""
    host, _, port = bind.rpartition(":")
    if host == "[::]":
        return f"[::1]:{port}"
    return f"127.0.0.1:{port}" if host in EVERYWHERE else bind


def _yaml(what: str, settings: dict[str, Any]) -> str:
    head = f"# {what}. Installed by `cluster init` from cluster.yaml: changes are lost.\n"
    return head + yaml.safe_dump(settings, sort_keys=False)


def _moved(cluster: Cluster, balancer: LoadBalancer) -> dict[str, Any]:
    if balancer.kind is Balancer.VULCAND:
        sealed = {"seal-key-file": f"{_CREDENTIALS}/seal-key"} if seals(balancer) else {}
        return {"etcd": _etcd(cluster), **sealed}
    listened = {"http": list(balancer.http), "https": list(balancer.https)}
    if balancer.kind is Balancer.NGINX:
        return {"folder": _OURS, "main": f"/{FOLDER}/nginx.conf", "pid-file": f"{_RUN}/nginx.pid", **listened}
    return {
        "socket": f"{_RUN}/admin.sock",
        "master": f"{_RUN}/master.sock",
        "config": f"{_OURS}/coupler.cfg",
        "base": [f"/{FOLDER}/haproxy.cfg"],
        **listened,
    }


def seals(balancer: LoadBalancer) -> bool:
    """Return whether the registrator gets the key that vulcand's certificates are sealed with."""
    return balancer.kind is Balancer.VULCAND and balancer.seal_key is not None


def _etcd(cluster: Cluster, unit: str = REGISTRATOR_UNIT) -> dict[str, Any]:
    # The gateway of the node knows the members. Images that ship etcd ship version 2.
    api = 2 if cluster.os.distribution is Distribution.CONTAINER_LINUX else 3
    if not cluster.etcd.tls:
        return {"endpoints": ["http://127.0.0.1:2379"], "api": api}
    files = {"ca": "ca.crt", "certificate": "registrator.crt", "key": "registrator.key"}
    named = {key: f"{_RUN_CREDENTIALS}/{unit}/{name}" for key, name in files.items()}
    return {"endpoints": ["https://127.0.0.1:2379"], "api": api, **named}


def _credentials(cluster: Cluster, balancer: LoadBalancer) -> str:
    """Return the drop-in by which systemd hands the keys, which root alone can read, to the registrator."""
    asks_etcd = balancer.announcements or balancer.kind is Balancer.VULCAND
    lines = _etcd_credentials(cluster) if asks_etcd else []
    lines += [f"LoadCredential=kubeconfig:/{KUBECONFIG}"] if balancer.kubeconfig else []
    lines += [f"LoadCredential=seal-key:/{SEAL_KEY}"] if seals(balancer) else []
    own = {"kubernetes-ca.crt": "ca.crt", "kubernetes.crt": "registrator.crt", "kubernetes.key": "registrator.key"}
    lines += [f"LoadCredential={n}:{PKI}/{file}" for n, file in own.items() if balancer.kubernetes]
    return _drop_in(lines)


def _etcd_credentials(cluster: Cluster) -> list[str]:
    names = ("ca.crt", "registrator.crt", "registrator.key") if cluster.etcd.tls else ()
    return [f"LoadCredential={name}:{_PKI}/{name}" for name in names]


def _drop_in(lines: list[str]) -> str:
    return "\n".join(["[Service]", *lines]) + "\n"


def _programs(cluster: Cluster) -> str:
    rows = [
        (a.name, a.version or "-", a.sha256 or "-", a.member or "-", a.target, *a.urls)
        for a in cluster.balancing_artifacts
    ]
    return "\n".join(["# name version sha256 member target urls", *(" ".join(row) for row in rows)]) + "\n"


def _static(name: str) -> str:
    path: Path = asset("roles") / "lb" / "files" / name
    return path.read_text(encoding="utf-8")
