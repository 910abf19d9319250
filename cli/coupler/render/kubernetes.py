"""Flags and configuration files of the Kubernetes components, chosen by version.

Source: https://kubernetes.io/docs/reference/command-line-tools-reference/ and, for what changed when, the release
notes of Kubernetes 1.21 to 1.34.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from coupler.render.systemd import command_words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from coupler.model import Cluster

PKI = "/etc/coupler/pki/kubernetes"
ETCD_PKI = "/etc/coupler/pki/etcd"
CONFIG = "/etc/coupler/kubernetes"
API = "https://127.0.0.1:6443"
CONTAINERD = "unix:///run/containerd/containerd.sock"


def derivations(cluster: Cluster) -> dict[str, Callable[[], Any]]:
    """Return how the values for the template `kubernetes` come about: flags as words of a command line, and files."""
    settings = cluster.kubernetes

    def words(flags: Mapping[str, str], extra: Mapping[str, str]) -> list[str]:
        gates = ",".join(f"{name}={str(on).lower()}" for name, on in sorted(settings.feature_gates.items()))
        common = {"feature-gates": gates} if gates else {}
        return command_words({**flags, **common, **extra})

    return {
        "gateway_program": lambda: "/opt/bin/etcd",
        "gateway_endpoints": lambda: ",".join(f"{node.address}:6443" for node in cluster.control_nodes),
        "api_server": lambda: words(_api_server(cluster), settings.api_server.extra_args),
        "controller_manager": lambda: words(_controller_manager(cluster), settings.controller_manager.extra_args),
        "scheduler": lambda: words(_scheduler(), settings.scheduler.extra_args),
        "kubelet": lambda: words(_kubelet(cluster), settings.kubelet.extra_args),
        "proxy": lambda: words(_proxy(cluster), settings.proxy.extra_args),
        "files": lambda: _files(cluster),
    }


def _minor(cluster: Cluster) -> int:
    return cluster.kubernetes.version.numbers[1]


def _api_server(cluster: Cluster) -> dict[str, str]:
    flags = {
        "allow-privileged": "true",
        "anonymous-auth": "false",
        "authorization-mode": "Node,RBAC",
        "client-ca-file": f"{PKI}/ca.crt",
        "enable-admission-plugins": "NodeRestriction",
        "etcd-servers": ("https" if cluster.etcd.tls else "http") + "://127.0.0.1:2379",
        "kubelet-client-certificate": f"{PKI}/apiserver-kubelet-client.crt",
        "kubelet-client-key": f"{PKI}/apiserver-kubelet-client.key",
        "kubelet-preferred-address-types": "InternalIP,Hostname",
        "proxy-client-cert-file": f"{PKI}/front-proxy-client.crt",
        "proxy-client-key-file": f"{PKI}/front-proxy-client.key",
        "requestheader-allowed-names": "front-proxy-client",
        "requestheader-client-ca-file": f"{PKI}/front-proxy-ca.crt",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-username-headers": "X-Remote-User",
        "secure-port": "6443",
        "service-account-issuer": f"https://kubernetes.default.svc.{cluster.network.domain}",
        "service-account-key-file": f"{PKI}/service-account.pub",
        "service-account-signing-key-file": f"{PKI}/service-account.key",
        "service-cluster-ip-range": str(cluster.network.services),
        "tls-cert-file": f"{PKI}/apiserver.crt",
        "tls-min-version": "VersionTLS12",
        "tls-private-key-file": f"{PKI}/apiserver.key",
    }
    if cluster.etcd.tls:
        flags |= {
            "etcd-cafile": f"{ETCD_PKI}/ca.crt",
            "etcd-certfile": f"{ETCD_PKI}/client.crt",
            "etcd-keyfile": f"{ETCD_PKI}/client.key",
        }
    return flags


def _controller_manager(cluster: Cluster) -> dict[str, str]:
    kubeconfig = f"{CONFIG}/controller-manager.kubeconfig"
    return {
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "bind-address": "127.0.0.1",
        "client-ca-file": f"{PKI}/ca.crt",
        "cluster-name": cluster.name,
        "kubeconfig": kubeconfig,
        "leader-elect": "true",
        "root-ca-file": f"{PKI}/ca.crt",
        "service-account-private-key-file": f"{PKI}/service-account.key",
        "use-service-account-credentials": "true",
    }


def _scheduler() -> dict[str, str]:
    kubeconfig = f"{CONFIG}/scheduler.kubeconfig"
    return {
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "bind-address": "127.0.0.1",
        "kubeconfig": kubeconfig,
        "leader-elect": "true",
    }


def _kubelet(cluster: Cluster) -> dict[str, str]:
    flags = {"config": f"{CONFIG}/kubelet.yaml", "kubeconfig": f"{CONFIG}/kubelet.kubeconfig"}
    if _minor(cluster) < 27:  # noqa: PLR2004 - since 1.27 it is a field of the configuration file
        flags["container-runtime-endpoint"] = CONTAINERD
    if _minor(cluster) < 24:  # noqa: PLR2004 - dockershim was the default until 1.24 removed it
        flags["container-runtime"] = "remote"
    return flags


def _proxy(cluster: Cluster) -> dict[str, str]:
    return {
        "cluster-cidr": str(cluster.network.pods),
        "kubeconfig": f"{CONFIG}/proxy.kubeconfig",
        "proxy-mode": cluster.kubernetes.proxy.mode.value,
    }


def _files(cluster: Cluster) -> dict[str, str]:
    files = {
        f"{CONFIG}/{user}.kubeconfig": _kubeconfig(cluster, user)
        for user in ("controller-manager", "scheduler", "proxy", "kubelet", "addons")
    }
    files[f"{CONFIG}/kubelet.yaml"] = _kubelet_configuration(cluster)
    return files


def _kubeconfig(cluster: Cluster, user: str) -> str:
    """Return a kubeconfig that names the files of a key pair; JSON, which is YAML and needs no quoting rules."""
    return _json(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": cluster.name, "cluster": {"server": API, "certificate-authority": f"{PKI}/ca.crt"}}],
            "users": [
                {
                    "name": user,
                    "user": {"client-certificate": f"{PKI}/{user}.crt", "client-key": f"{PKI}/{user}.key"},
                }
            ],
            "contexts": [{"name": user, "context": {"cluster": cluster.name, "user": user}}],
            "current-context": user,
        }
    )


def _kubelet_configuration(cluster: Cluster) -> str:
    configuration: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{PKI}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "clusterDNS": [str(cluster.network.services[10])],
        "clusterDomain": cluster.network.domain,
        "tlsCertFile": f"{PKI}/kubelet.crt",
        "tlsPrivateKeyFile": f"{PKI}/kubelet.key",
        "tlsMinVersion": "VersionTLS12",
        "volumePluginDir": "/opt/libexec/kubernetes/kubelet-plugins/volume/exec",
    }
    if _minor(cluster) >= 27:  # noqa: PLR2004 - see _kubelet
        configuration["containerRuntimeEndpoint"] = CONTAINERD
    return _json(configuration)


def _json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"
