"""Rules about Kubernetes: versions that go together, and options that a version takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coupler.model.catalogue import version_key
from coupler.model.components import ProxyMode
from coupler.model.problem import did_you_mean
from coupler.model.releases import FIELDS, GATES_UNTIL, NEWEST, OLDEST, changes_of
from coupler.model.rules.issue import Issue, error, warning
from coupler.model.system import Distribution

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coupler.model.cluster import Cluster
    from coupler.model.source import KeyPath

SKEW = {"kube-controller-manager": 1, "kube-scheduler": 1, "kubelet": 3, "kube-proxy": 3}
"""How many minor versions older than the API server a program may be, and never newer
(https://kubernetes.io/releases/version-skew-policy/)."""
WIDE_SKEW_SINCE = 25
NODE_SKEW_BEFORE_25 = 2
"""The same for a kubelet or kube-proxy older than 1.25."""
KUBECTL_SKEW = 1
SECTIONS = {
    "kube-apiserver": "api_server",
    "kube-controller-manager": "controller_manager",
    "kube-scheduler": "scheduler",
    "kubelet": "kubelet",
    "kube-proxy": "proxy",
}
"""The section below `kubernetes` of each program."""
ETCD_RECOMMENDED = {(3, 4): (3, 4, 22), (3, 5): (3, 5, 6)}
"""Minor version of etcd → the first patch that Kubernetes advises ('Operating etcd clusters for Kubernetes')."""
NFTABLES_SINCE = 31
IPVS_DEPRECATED_SINCE = 35
LABELS_OF_KUBELETS = {
    *("kubernetes.io/hostname", "kubernetes.io/arch", "kubernetes.io/os", "node.kubernetes.io/instance-type"),
    *(
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/os",
    ),
    *("beta.kubernetes.io/instance-type", "failure-domain.beta.kubernetes.io/region"),
    "failure-domain.beta.kubernetes.io/zone",
}
"""Labels of Kubernetes' own that a kubelet may give its node (the admission controller NodeRestriction)."""
DOMAINS_OF_KUBELETS = ("kubelet.kubernetes.io", "node.kubernetes.io")


def supported_version(cluster: Cluster) -> Iterator[Issue]:
    """The versions are among those whose options are known."""
    for program in SECTIONS if cluster.kubernetes.enabled else ():
        version, path = cluster.version_of(program), version_key(cluster, program)
        if program != "kube-apiserver" and path == version_key(cluster, "kube-apiserver"):
            continue
        major, minor, _ = version.numbers
        if (major, minor) < (1, OLDEST):
            hint = f"use 1.{OLDEST} or newer"
            yield error("kubernetes-too-old", path, f"{program} {version} is too old for this Coupler", hint)
        elif (major, minor) > (1, NEWEST):
            message = f"this Coupler knows Kubernetes up to 1.{NEWEST}, and gives {program} {version} the same options"
            yield warning("kubernetes-too-new", path, message, "try it on a cluster that you can lose")


def version_skew(cluster: Cluster) -> Iterator[Issue]:
    """The programs are no newer than the API server, and not much older."""
    if not cluster.kubernetes.enabled:
        return
    server = cluster.version_of("kube-apiserver")
    for program, most in SKEW.items():
        version = cluster.version_of(program)
        oldest = server.numbers[1] - most
        if most > NODE_SKEW_BEFORE_25 and oldest < WIDE_SKEW_SINCE:
            oldest = server.numbers[1] - NODE_SKEW_BEFORE_25
        older = server.numbers[1] - version.numbers[1]
        if older < 0:
            message = f"{program} {version} is newer than the API server, {server}"
            hint = "give the API server the newer version first"
        elif version.numbers[1] < oldest:
            message = f"{program} {version} is {older} minor versions older than the API server, {server}"
            hint = f"use 1.{oldest} or newer"
        else:
            continue
        yield error("version-skew", version_key(cluster, program), message, hint)
    kubectl = cluster.version_of("kubectl")
    if abs(kubectl.numbers[1] - server.numbers[1]) > KUBECTL_SKEW:
        message = f"kubectl {kubectl} and the API server {server} are more than one minor version apart"
        yield warning("version-skew", version_key(cluster, "kubectl"), message, f"use kubectl 1.{server.numbers[1]}")


def etcd_for_kubernetes(cluster: Cluster) -> Iterator[Issue]:
    """The API server stores its data in an etcd without known faults."""
    version = cluster.etcd.version
    if not cluster.kubernetes.enabled or cluster.os.distribution is Distribution.CONTAINER_LINUX:
        return
    least = ETCD_RECOMMENDED.get(version.numbers[:2])
    if least and version.numbers < least:
        oldest = ".".join(map(str, least))
        message = f"Kubernetes advises against etcd {version} in production"
        yield warning("etcd-too-old", ("etcd", "version"), message, f"use {oldest} or newer")


def known_options(cluster: Cluster) -> Iterator[Issue]:
    """A program that meets an option or a feature gate that it does not know does not start."""
    if not cluster.kubernetes.enabled:
        return
    for program, section in SECTIONS.items():
        minor = cluster.version_of(program).numbers[1]
        for option in getattr(cluster.kubernetes, section).extra_args:
            if said := _refused(program, f"--{option}", minor):
                yield error("unknown-option", ("kubernetes", section, "extra_args", option), said, "remove it")
    newest = max(cluster.version_of(program).numbers[1] for program in SECTIONS)
    for gate in cluster.kubernetes.feature_gates:
        until = GATES_UNTIL.get(gate)
        if until and newest >= until:
            message = f"Kubernetes has no feature gate {gate} any more since 1.{until}"
            yield error("unknown-gate", ("kubernetes", "feature_gates", gate), message, "remove it")


def known_fields(cluster: Cluster) -> Iterator[Issue]:
    """A kubelet passes over a field that it does not know, as if it had not been written."""
    minor = cluster.version_of("kubelet").numbers[1]
    for field in cluster.kubernetes.kubelet.configuration if cluster.kubernetes.enabled else ():
        path: KeyPath = ("kubernetes", "kubelet", "configuration", field)
        if field not in FIELDS and minor <= NEWEST:
            hint = did_you_mean(field, sorted(FIELDS))
            yield error("unknown-field", path, f"a kubelet has no field {field} in its configuration", hint)
        elif said := _refused("kubelet", field, minor):
            yield error("unknown-field", path, said, "remove it, or use a version that has it")


def _refused(program: str, option: str, minor: int) -> str | None:
    """Return why this minor version of a program refuses an option, if it does."""
    for change in changes_of(program, option):
        if change.until and minor >= change.until:
            return f"{program} has no {option} any more since 1.{change.until}"
        if change.since and minor < change.since:
            return f"{program} has {option} only since 1.{change.since}"
    return None


def labels_of_kubelets(cluster: Cluster) -> Iterator[Issue]:
    """A kubelet may give its node labels of Kubernetes' own only from a short list (NodeRestriction)."""
    if not cluster.kubernetes.enabled:
        return
    for row, node in enumerate(cluster.rows):
        for label in node.labels:
            domain = label.rpartition("/")[0]
            of_kubernetes = any(f".{domain}".endswith(f".{owner}") for owner in ("kubernetes.io", "k8s.io"))
            allowed = label in LABELS_OF_KUBELETS or any(
                f".{domain}".endswith(f".{allowed}") for allowed in DOMAINS_OF_KUBELETS
            )
            if of_kubernetes and not allowed:
                message = f"a kubelet may not give its node the label {label}, and does not start with it"
                hint = "use a domain of your own, or `kubectl label node` once the node is there"
                if domain == "node-role.kubernetes.io":
                    hint = "remove it: nodes are labelled with their roles"
                yield error("forbidden-label", ("nodes", row, "labels", label), message, hint)


def shutdown_times(cluster: Cluster) -> Iterator[Issue]:
    """The time for critical pods is a part of the time for all."""
    kubelet = cluster.kubernetes.kubelet
    whole, critical = kubelet.shutdown_grace_period, kubelet.shutdown_grace_period_critical_pods
    if 0 < whole.seconds < critical.seconds:
        message = f"critical pods cannot get {critical} of the {whole} that a shutdown waits"
        written = "shutdown_grace_period_critical_pods" in kubelet.model_fields_set
        key = "shutdown_grace_period_critical_pods" if written else "shutdown_grace_period"
        yield error("shutdown-times", ("kubernetes", "kubelet", key), message, f"write at most `{whole}`")


def proxy_mode(cluster: Cluster) -> Iterator[Issue]:
    """kube-proxy's modes came and go with its versions."""
    kubernetes, path = cluster.kubernetes, ("kubernetes", "proxy", "mode")
    if not kubernetes.enabled:
        return
    version = cluster.version_of("kube-proxy")
    if kubernetes.proxy.mode is ProxyMode.NFTABLES and version.numbers[1] < NFTABLES_SINCE:
        message = f"kube-proxy {version} does not offer nftables by default; 1.31 and later do"
        yield error("proxy-mode", path, message, "use iptables, or a newer Kubernetes")
    if kubernetes.proxy.mode is ProxyMode.IPVS and version.numbers[1] >= IPVS_DEPRECATED_SINCE:
        yield warning("proxy-mode", path, "the mode ipvs is deprecated since Kubernetes 1.35", "use nftables")


RULES = (
    supported_version,
    version_skew,
    etcd_for_kubernetes,
    known_options,
    known_fields,
    labels_of_kubelets,
    shutdown_times,
    proxy_mode,
)
