"""Objects of the API as users and controllers write them, with what a test wants to say and little else."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from coupler.registrator.model import Certificate

Object = dict[str, Any]
CHANGED_AT = "endpoints.kubernetes.io/last-change-trigger-time"


def service(name: str, *ports: int, annotations: Mapping[str, str] | None = None, **spec: Any) -> Object:
    """Return a Service of the namespace shop; its first port is called http."""
    named = [{"name": "http" if not n else f"port-{n}", "port": p, "protocol": "TCP"} for n, p in enumerate(ports)]
    return _object("v1", "Service", name, annotations) | {"spec": {"ports": named, "type": "ClusterIP"} | spec}


def endpoint_slice(
    name: str,
    of: str,
    port: int,
    *endpoints: tuple[str, str, str],
    port_name: str = "http",
    changed_at: str | None = None,
) -> Object:
    """Return a slice; an endpoint is (uid, address, state), and a state is ready, terminating, gone or down."""
    conditions = {
        "ready": {"ready": True, "serving": True, "terminating": False},
        "terminating": {"ready": False, "serving": True, "terminating": True},
        "gone": {"ready": False, "serving": False, "terminating": True},
        "down": {"ready": False, "serving": False, "terminating": False},
    }
    item = _object("discovery.k8s.io/v1", "EndpointSlice", name, {CHANGED_AT: changed_at} if changed_at else None)
    item["metadata"]["labels"] = {"kubernetes.io/service-name": of}
    entries = [
        {"addresses": [address], "conditions": conditions[state], "targetRef": {"kind": "Pod", "uid": uid}}
        for uid, address, state in endpoints
    ]
    ports = [{"name": port_name, "port": port, "protocol": "TCP"}] if entries else None
    return item | {"addressType": "IPv4", "endpoints": entries or None, "ports": ports}


def ingress(
    name: str,
    host: str,
    backend: str,
    port: int | str = "http",
    *,
    path: str = "/",
    kind: str = "Prefix",
    tls: str | None = None,
    annotations: Mapping[str, str] | None = None,
    class_name: str | None = "coupler",
) -> Object:
    """Return an Ingress with one rule; `tls` names a Secret."""
    to = {"service": {"name": backend, "port": {"number" if isinstance(port, int) else "name": port}}}
    spec: Object = {"rules": [{"host": host, "http": {"paths": [{"path": path, "pathType": kind, "backend": to}]}}]}
    spec |= {"ingressClassName": class_name} if class_name else {}
    spec |= {"tls": [{"hosts": [host], "secretName": tls}]} if tls else {}
    return _object("networking.k8s.io/v1", "Ingress", name, annotations) | {"spec": spec}


def pod(
    name: str,
    address: str,
    port: int,
    *,
    annotations: Mapping[str, str],
    labels: Mapping[str, str] | None = None,
    ready: bool = True,
    uid: str | None = None,
) -> Object:
    """Return a pod that runs, with one container port called http."""
    item = _object("v1", "Pod", name, annotations)
    item["metadata"] |= {"labels": dict(labels or {})} | ({"uid": uid} if uid else {})
    container = {"name": "app", "ports": [{"name": "http", "containerPort": port}]}
    condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": "2026-01-01T00:00:00Z"}
    status = {"phase": "Running", "podIP": address, "conditions": [condition]}
    return item | {"spec": {"containers": [container]}, "status": status}


def secret(name: str, certificate: Certificate) -> Object:
    """Return a Secret of type kubernetes.io/tls."""
    texts = {"tls.crt": certificate.chain, "tls.key": certificate.key}
    data = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
    return _object("v1", "Secret", name, None) | {"type": "kubernetes.io/tls", "data": data}


def endpoints(name: str, port: int, addresses: Sequence[str]) -> Object:
    """Return core/v1 Endpoints, as a server without slices has them."""
    subset = {"addresses": [{"ip": address} for address in addresses], "ports": [{"name": "http", "port": port}]}
    return _object("v1", "Endpoints", name, None) | {"subsets": [subset]}


def _object(version: str, kind: str, name: str, annotations: Mapping[str, str] | None) -> Object:
    metadata: Object = {"name": name, "namespace": "shop"} | ({"annotations": dict(annotations)} if annotations else {})
    return {"apiVersion": version, "kind": kind, "metadata": metadata}
