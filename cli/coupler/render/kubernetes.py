"""Options and configuration files of the Kubernetes components.

Everything that Coupler sets is written down here once, and `coupler.model.releases` knows which versions take it.
Source: https://kubernetes.io/docs/reference/command-line-tools-reference/ and
https://kubernetes.io/docs/reference/config-api/.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from coupler.model.releases import fields_for, flags_for
from coupler.render.systemd import command_words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from coupler.model import Cluster
    from coupler.model.components import Component, Reserved

PKI = "/etc/coupler/pki/kubernetes"
ETCD_PKI = "/etc/coupler/pki/etcd"
CONFIG = "/etc/coupler/kubernetes"
API = "https://127.0.0.1:6443"
CONTAINERD = "unix:///run/containerd/containerd.sock"
AUDIT_LOG = "/var/log/kubernetes/audit.log"
VOLUME_PLUGINS = "/opt/libexec/kubernetes/kubelet-plugins/volume/exec"
"""The default lies below /usr, which is read-only."""
TLS = "VersionTLS12"
"""The oldest version of TLS that is spoken."""


def derivations(cluster: Cluster) -> dict[str, Callable[[], Any]]:
    """Return how the values for the template `kubernetes` come about: options as words of a command line, and files."""
    settings = cluster.kubernetes

    def words(program: str, component: Component, facts: Mapping[str, str], flags: Mapping[str, str]) -> list[str]:
        """Return the words: `facts` are variables of the unit, which systemd fills in on the node."""
        minor = minor_of(cluster, program)
        gates = ",".join(f"{name}={str(on).lower()}" for name, on in sorted(settings.feature_gates.items()))
        common = {"feature-gates": gates} if gates else {}
        chosen = {**flags_for(program, {**flags, **common}, minor), **component.extra_args}
        on_node = {name: value for name, value in facts.items() if name not in chosen}
        filled_in = [f"--{name}={value}" for name, value in flags_for(program, on_node, minor).items()]
        return filled_in + command_words(chosen)

    return {
        "gateway_program": lambda: "/opt/bin/etcd",
        "gateway_endpoints": lambda: ",".join(f"{node.address}:6443" for node in cluster.control_nodes),
        "api_server": lambda: words("kube-apiserver", settings.api_server, API_SERVER_FACTS, api_server_flags(cluster)),
        "controller_manager": lambda: words(
            "kube-controller-manager", settings.controller_manager, {}, controller_manager_flags(cluster)
        ),
        "scheduler": lambda: words("kube-scheduler", settings.scheduler, {}, scheduler_flags()),
        "kubelet": lambda: words("kubelet", settings.kubelet, KUBELET_FACTS, kubelet_flags(cluster)),
        "proxy": lambda: words("kube-proxy", settings.proxy, PROXY_FACTS, proxy_flags(cluster)),
        "files": lambda: files(cluster),
        "api_server_restart": lambda: " ".join(_api_server_files(cluster)),
    }


def minor_of(cluster: Cluster, program: str) -> int:
    """Return the minor version of a program of Kubernetes."""
    return cluster.version_of(program).numbers[1]


API_SERVER_FACTS = {"advertise-address": "${COUPLER_ADDRESS}", "bind-address": "${COUPLER_ADDRESS}"}
"""It leaves 127.0.0.1:6443 to the gateway, which finds an API server that answers."""
KUBELET_FACTS = {
    "cgroup-driver": "${COUPLER_CGROUP_DRIVER}",
    "hostname-override": "${COUPLER_NODE}",
    "node-ip": "${COUPLER_ADDRESS}",
    "node-labels": "${COUPLER_LABELS}",
    "register-with-taints": "${COUPLER_TAINTS}",
    "resolv-conf": "${COUPLER_RESOLV_CONF}",
}
PROXY_FACTS = {"hostname-override": "${COUPLER_NODE}"}


def api_server_flags(cluster: Cluster) -> dict[str, str]:
    """Return the options of kube-apiserver."""
    flags = {
        "allow-privileged": "true",
        "anonymous-auth": "false",
        "authorization-mode": "Node,RBAC",
        "client-ca-file": f"{PKI}/ca.crt",
        "enable-admission-plugins": "NodeRestriction",
        "encryption-provider-config": f"{PKI}/encryption.yaml",
        "etcd-servers": f"{cluster.etcd.scheme}://127.0.0.1:2379",
        "kubelet-certificate-authority": f"{PKI}/ca.crt",
        "kubelet-client-certificate": f"{PKI}/apiserver-kubelet-client.crt",
        "kubelet-client-key": f"{PKI}/apiserver-kubelet-client.key",
        "kubelet-preferred-address-types": "InternalIP,Hostname",
        "profiling": "false",
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
        "tls-min-version": TLS,
        "tls-private-key-file": f"{PKI}/apiserver.key",
    }
    if cluster.etcd.tls:
        flags |= {
            "etcd-cafile": f"{ETCD_PKI}/ca.crt",
            "etcd-certfile": f"{ETCD_PKI}/client.crt",
            "etcd-keyfile": f"{ETCD_PKI}/client.key",
        }
    if cluster.kubernetes.audit:
        flags |= {
            "audit-log-maxage": "30",
            "audit-log-maxbackup": "10",
            "audit-log-maxsize": "100",
            "audit-log-path": AUDIT_LOG,
            "audit-policy-file": f"{CONFIG}/audit-policy.yaml",
        }
    return flags


def _api_server_files(cluster: Cluster) -> list[str]:
    """Return the files with whose change the API server must start anew: it looks at most of them only then."""
    names = ["ca", "apiserver", "apiserver-kubelet-client", "front-proxy-ca", "front-proxy-client"]
    files = [f"{PKI}/{name}.crt" for name in names] + [f"{PKI}/service-account.pub", f"{PKI}/encryption.yaml"]
    if cluster.etcd.tls:
        files += [f"{ETCD_PKI}/ca.crt", f"{ETCD_PKI}/client.crt"]
    return files + ([f"{CONFIG}/audit-policy.yaml"] if cluster.kubernetes.audit else [])


def controller_manager_flags(cluster: Cluster) -> dict[str, str]:
    """Return the options of kube-controller-manager.

    It gives nodes no subnets: flannel leases them, or cluster.yaml says which. It signs no certificates: it has no key.
    """
    kubeconfig = f"{CONFIG}/controller-manager.kubeconfig"
    return {
        "allocate-node-cidrs": "false",
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "bind-address": "127.0.0.1",
        "client-ca-file": f"{PKI}/ca.crt",
        "cluster-name": cluster.name,
        "flex-volume-plugin-dir": VOLUME_PLUGINS,
        "kubeconfig": kubeconfig,
        "leader-elect": "true",
        "port": "0",
        "profiling": "false",
        "root-ca-file": f"{PKI}/ca.crt",
        "service-account-private-key-file": f"{PKI}/service-account.key",
        "tls-min-version": TLS,
        "use-service-account-credentials": "true",
    }


def scheduler_flags() -> dict[str, str]:
    """Return the options of kube-scheduler. Where no API server answers yet, it ends, and is started again."""
    kubeconfig = f"{CONFIG}/scheduler.kubeconfig"
    return {
        "authentication-kubeconfig": kubeconfig,
        "authentication-tolerate-lookup-failure": "false",
        "authorization-kubeconfig": kubeconfig,
        "bind-address": "127.0.0.1",
        "kubeconfig": kubeconfig,
        "leader-elect": "true",
        "port": "0",
        "profiling": "false",
        "tls-min-version": TLS,
    }


def kubelet_flags(cluster: Cluster) -> dict[str, str]:
    """Return the options of the kubelet that are not in its configuration file, or were not in older versions."""
    return {
        "config": f"{CONFIG}/kubelet.yaml",
        "container-runtime": "remote",
        "container-runtime-endpoint": CONTAINERD,
        "kubeconfig": f"{CONFIG}/kubelet.kubeconfig",
        "pod-infra-container-image": cluster.pause_image,
    }


def proxy_flags(cluster: Cluster) -> dict[str, str]:
    """Return the options of kube-proxy. Flags, not a file: beside a file it ignores every flag, and so `extra_args`.

    It leaves the kernel's limit on connections as it is. A machine in a container or a virtual machine with a fixed
    limit may not change it, and kube-proxy would not start; others can with `extra_args: {conntrack-max-per-core: …}`.
    """
    return {
        "cluster-cidr": str(cluster.network.pods),
        "conntrack-max-per-core": "0",
        "kubeconfig": f"{CONFIG}/proxy.kubeconfig",
        "proxy-mode": cluster.kubernetes.proxy.mode.value,
    }


def files(cluster: Cluster) -> dict[str, str]:
    """Return path → text of the files of Kubernetes that the document brings to every node."""
    found = {
        f"{CONFIG}/{user}.kubeconfig": kubeconfig(cluster, user, f"{PKI}/ca.crt", f"{PKI}/{user}")
        for user in ("controller-manager", "scheduler", "proxy", "kubelet", "addons")
    }
    found[f"{CONFIG}/kubelet.yaml"] = _json(kubelet_configuration(cluster))
    if cluster.kubernetes.audit:
        found[f"{CONFIG}/audit-policy.yaml"] = _json(audit_policy())
    return found


def kubeconfig(cluster: Cluster, user: str, authority: str, pair: str) -> str:
    """Return a kubeconfig for a program on a node; JSON, which is YAML and needs no quoting rules.

    It names files of that node: the certificate of the authority, and `pair` with .crt and .key.
    """
    return _json(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": cluster.name, "cluster": {"server": API, "certificate-authority": authority}}],
            "users": [
                {
                    "name": user,
                    "user": {"client-certificate": f"{pair}.crt", "client-key": f"{pair}.key"},
                }
            ],
            "contexts": [{"name": user, "context": {"cluster": cluster.name, "user": user}}],
            "current-context": user,
        }
    )


def kubelet_configuration(cluster: Cluster) -> dict[str, Any]:
    """Return the kubelet's configuration. The kubelet passes over fields that it does not know, and logs a warning.

    It starts where swap is on (a container sees its host's) and on cgroup version 1.
    """
    settings = cluster.kubernetes.kubelet
    fields: dict[str, Any] = {
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
        "containerRuntimeEndpoint": CONTAINERD,
        # All of them: older kubelets forget their defaults once one is set.
        "evictionHard": {
            "memory.available": settings.eviction_hard.memory_available,
            "nodefs.available": settings.eviction_hard.nodefs_available,
            "nodefs.inodesFree": settings.eviction_hard.nodefs_inodes_free,
            "imagefs.available": settings.eviction_hard.imagefs_available,
        },
        "failCgroupV1": False,
        "failSwapOn": False,
        "kubeReserved": _reserved(settings.kube_reserved),
        "systemReserved": _reserved(settings.system_reserved),
        "tlsCertFile": f"{PKI}/kubelet.crt",
        "tlsMinVersion": TLS,
        "tlsPrivateKeyFile": f"{PKI}/kubelet.key",
        "volumePluginDir": VOLUME_PLUGINS,
    }
    if settings.shutdown_grace_period.seconds and cluster.kubernetes.feature_gates.get("GracefulNodeShutdown", True):
        fields |= {
            "featureGates": {"GracefulNodeShutdown": True},
            "shutdownGracePeriod": str(settings.shutdown_grace_period),
            "shutdownGracePeriodCriticalPods": str(settings.shutdown_grace_period_critical_pods),
        }
    return fields_for("kubelet", fields, minor_of(cluster, "kubelet")) | settings.configuration


def _reserved(reserved: Reserved) -> dict[str, str]:
    amounts = {
        "cpu": reserved.cpu,
        "memory": reserved.memory,
        "ephemeral-storage": reserved.ephemeral_storage,
        "pid": reserved.pid,
    }
    return {name: amount for name, amount in amounts.items() if amount is not None}


def audit_policy() -> dict[str, Any]:
    """Return what the API server logs (https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/).

    Who did what to which object, and never what an object holds: secrets would end up in the log. What machines ask all
    day long is left out: health, what there is to ask for, leases, the watches of kube-proxy, and events.
    """
    none = {"level": "None"}
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {**none, "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/version", "/openapi/*", "/api*"]},
            {**none, "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}]},
            {**none, "resources": [{"group": "", "resources": ["events"]}, {"group": "events.k8s.io"}]},
            {**none, "users": ["system:kube-proxy"], "verbs": ["get", "list", "watch"]},
            {
                **none,
                "userGroups": ["system:nodes"],
                "verbs": ["get", "list", "watch"],
                "resources": [{"group": "", "resources": ["nodes", "services", "pods"]}, {"group": "node.k8s.io"}],
            },
            {"level": "Metadata"},
        ],
    }


def _json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"
