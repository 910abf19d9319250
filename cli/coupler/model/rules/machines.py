"""Rules about the nodes: their names and addresses, their roles, and the networks around them."""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from coupler.model.catalogue import IMAGE, REGISTRATOR
from coupler.model.network import POD_SUBNET
from coupler.model.rules.issue import Issue, error, warning
from coupler.model.services import EVERYWHERE, Balancer

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from coupler.model.cluster import Cluster
    from coupler.model.node import Node
    from coupler.model.source import KeyPath

UNROUTED = {
    IPv4Network("0.0.0.0/8"): "this machine's",
    IPv4Network("127.0.0.0/8"): "the loopback's",
    IPv4Network("169.254.0.0/16"): "for machines without an address",
    IPv4Network("224.0.0.0/4"): "for multicast",
    IPv4Network("240.0.0.0/4"): "reserved",
}
"""Networks whose addresses no machine forwards (RFC 6890)."""
MOST_MEMBERS = 7
"""etcd's documentation advises no more members (FAQ, 'What is maximum cluster size?')."""


def unique_names(cluster: Cluster) -> Iterator[Issue]:
    """No two nodes share a name."""
    return _repeated(cluster, "name", "duplicate-name", lambda node: node.name)


def unique_addresses(cluster: Cluster) -> Iterator[Issue]:
    """No two nodes share an address."""
    return _repeated(cluster, "address", "duplicate-address", lambda node: node.address)


def unique_macs(cluster: Cluster) -> Iterator[Issue]:
    """No two nodes share a MAC address."""
    return _repeated(cluster, "mac", "duplicate-mac", lambda node: node.mac)


def unique_ssh(cluster: Cluster) -> Iterator[Issue]:
    """No two machines are reached at the same address and port."""
    first: dict[tuple[str, int], Node] = {}
    for node in cluster.nodes:
        other = first.setdefault((node.ssh_address, node.ssh_port), node)
        if other.address != node.address:
            message = f"{node.ssh_address}, port {node.ssh_port}, leads to {other.name} already"
            yield error("duplicate-ssh", ("nodes", node.row, "ssh"), message, f"see item {other.row + 1} of `nodes`")


def _repeated(cluster: Cluster, key: str, code: str, of: Callable[[Node], Hashable]) -> Iterator[Issue]:
    first: dict[Hashable, Node] = {}
    for node in cluster.nodes:
        value = of(node)
        other = first.setdefault(value, node)
        if value is not None and other is not node:
            message = (
                f"{value} belongs to {other.name} already" if key != "name" else f"a second node is called {value}"
            )
            yield error(code, ("nodes", node.row, key), message, f"see item {other.row + 1} of `nodes`")


def control_plane(cluster: Cluster) -> Iterator[Issue]:
    """Kubernetes needs a control plane, and everything needs etcd."""
    if cluster.kubernetes.enabled and not cluster.control_nodes:
        hint = "give a node the role control, or set kubernetes.enabled to false"
        yield error("no-control-plane", ("nodes",), "no node has the role control, which Kubernetes needs", hint)
    elif not cluster.etcd_members:
        hint = "give one node, better three, the role etcd"
        yield error(
            "no-etcd-members", ("nodes",), "no node has the role etcd or control: etcd would have no members", hint
        )


def etcd_size(cluster: Cluster) -> Iterator[Issue]:
    """An odd number of members, and not many, serves etcd best."""
    count = len(cluster.etcd_members)
    if count and count % 2 == 0:
        message = (
            f"etcd has {count} members and needs {count // 2 + 1} of them: "
            f"it survives the loss of {(count - 1) // 2}, as it would with {count - 1}"
        )
        yield warning(
            "even-etcd-members", ("nodes",), message, f"make it {count - 1} or {count + 1}: give nodes the role etcd"
        )
    elif count > MOST_MEMBERS:
        message = f"etcd has {count} members; each write waits for {count // 2 + 1} of them"
        yield warning("many-etcd-members", ("nodes",), message, "give 3 or 5 nodes the role etcd")


def separate_networks(cluster: Cluster) -> Iterator[Issue]:
    """Pods, services and nodes live in networks of their own."""
    network = cluster.network
    if network.pods.overlaps(network.services):
        message = f"the services' network {network.services} overlaps the pods' {network.pods}"
        yield error("overlapping-networks", ("network", "services"), message, "give each a network of its own")
    for name, taken in (("pods", network.pods), ("services", network.services)):
        inside = next((node for node in cluster.nodes if node.address in taken), None)
        if inside:
            message = f"{inside.address} of {inside.name} lies in the network of {name}, {taken}"
            hint = f"choose another network.{name}, or another address"
            yield error("node-in-network", ("nodes", inside.row, "address"), message, hint)


def usable_networks(cluster: Cluster) -> Iterator[Issue]:
    """Pods and services live where packets can be routed."""
    for name in ("pods", "services"):
        network: IPv4Network = getattr(cluster.network, name)
        for reserved, meaning in UNROUTED.items():
            if network.overlaps(reserved):
                message = f"{network} overlaps {reserved}, which is {meaning}"
                hint = "take a private network: from 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"
                yield error("unusable-network", ("network", name), message, hint)


def servers_outside(cluster: Cluster) -> Iterator[Issue]:
    """What nodes ask from outside is outside: an address inside the cluster's own networks is routed to pods."""
    for path, host in _servers(cluster):
        try:
            address = IPv4Address(host)
        except AddressValueError:
            continue
        for name in ("pods", "services"):
            network: IPv4Network = getattr(cluster.network, name)
            if address in network:
                message = f"{address} lies in the network of {name}, {network}: nodes would look for it there"
                yield error("server-in-network", path, message, f"choose another network.{name}")


def _servers(cluster: Cluster) -> Iterator[tuple[KeyPath, str]]:
    """Yield the servers that nodes ask, with their keys; what is a name, DNS tells the nodes."""
    urls: dict[KeyPath, str | None] = {
        ("git", "repository"): cluster.git.repository,
        ("mirror", "url"): cluster.mirror.url if cluster.mirror else None,
        ("os", "update_server"): cluster.os.update_server,
        ("proxy", "http"): cluster.proxy.http,
        ("proxy", "https"): cluster.proxy.https,
    }
    for path, url in urls.items():
        if url:
            yield path, urlsplit(url).hostname or ""
    for index, host in enumerate(cluster.time_servers):
        yield ("time_servers", index), host


def room_for_pods(cluster: Cluster) -> Iterator[Issue]:
    """Each node gets a /24 of the pod network; flannel leaves out the first."""
    pods, count = cluster.network.pods, len(cluster.nodes)
    if not cluster.network.flannel.enabled and not cluster.kubernetes.enabled:
        return
    room = max(0, (1 << max(0, POD_SUBNET - pods.prefixlen)) - 1)
    if room < count:
        enough = POD_SUBNET - count.bit_length()
        message = f"{pods} has room for {room} nodes with a /{POD_SUBNET} each, and there are {count}"
        hint = f"widen it to /{enough} or shorter, such as {pods.supernet(new_prefix=min(enough, pods.prefixlen))}"
        yield error("pods-too-small", ("network", "pods"), message, hint)


def own_pod_subnets(cluster: Cluster) -> Iterator[Issue]:
    """Where routes connect the pods, each node has a part of their network that no other has."""
    pods = cluster.network.pods
    if not cluster.network.routed or pods.prefixlen > POD_SUBNET:
        return
    first: dict[IPv4Network, Node] = {}
    taken = {cluster.pod_subnet_of(node) for node in cluster.nodes}
    free = next((subnet for subnet in pods.subnets(new_prefix=POD_SUBNET) if subnet not in taken), None)
    for node in cluster.nodes:
        subnet = cluster.pod_subnet_of(node)
        path = ("nodes", node.row, "pod_subnet" if node.pod_subnet else "address")
        other = first.setdefault(subnet, node)
        hint = f"give it a `pod_subnet` of its own, such as {free}" if free else "widen network.pods"
        if not subnet.subnet_of(pods):
            message = f"{subnet} is no part of the pods' network {pods}"
            yield error("pod-subnet-outside", path, message, hint)
        elif other is not node:
            message = f"the pods of {node.name} would share {subnet} with those of {other.name}"
            yield error("duplicate-pod-subnet", path, message, hint)


def balancer_and_role(cluster: Cluster) -> Iterator[Issue]:
    """A load balancer runs on the nodes with the role lb: neither makes sense without the other."""
    if cluster.load_balancer and not cluster.load_balancers:
        message = "no node has the role lb, so the load balancer would run nowhere"
        yield warning("balancer-without-node", ("load_balancer",), message, "give a node the role lb")
    if not cluster.load_balancer and cluster.load_balancers:
        node = cluster.load_balancers[0]
        message = f"{node.name} has the role lb, and no load balancer is configured"
        yield warning(
            "node-without-balancer", ("nodes", node.row, "roles"), message, "add `load_balancer: {kind: haproxy}`"
        )


def something_to_balance(cluster: Cluster) -> Iterator[Issue]:
    """A balancer needs a source, and its files are there."""
    balancer = cluster.load_balancer
    if balancer and not (balancer.announcements or balancer.kubernetes or balancer.kubeconfig):
        message = "there would be nothing to balance: neither what is announced nor what Kubernetes has"
        yield error("nothing-to-balance", ("load_balancer", "announcements"), message, "set it to true, or kubernetes")
    if balancer and balancer.kubernetes and (balancer.kubeconfig or not cluster.kubernetes.enabled):
        message = "a registrator follows one Kubernetes" if balancer.kubeconfig else "the cluster runs no Kubernetes"
        hint = "leave out this or kubeconfig" if balancer.kubeconfig else "set it to false, or give a kubeconfig"
        yield error("which-kubernetes", ("load_balancer", "kubernetes"), message, hint)
    for key in ("kubeconfig", "seal_key") if balancer else ():
        path = getattr(balancer, key)
        if path and not path.is_file():
            message = f"there is no file {path}"
            yield error("file-missing", ("load_balancer", key), message, "the path is relative to cluster.yaml")


def virtual_address(cluster: Cluster) -> Iterator[Issue]:
    """The address that moves is nobody's own, lies outside of the cluster's networks, and is listened to."""
    balancer, path = cluster.load_balancer, ("load_balancer", "virtual_address")
    if not balancer or not balancer.virtual_address:
        return
    address = balancer.virtual_address
    owner = next((node for node in cluster.nodes if node.address == address), None)
    if owner:
        message = f"{address} is the address of {owner.name}, which it would take away"
        yield error("virtual-address-taken", path, message, "choose a free address in the network of the nodes")
    for name, network in (("pods", cluster.network.pods), ("services", cluster.network.services)):
        if address in network:
            message = f"{address} lies in the network of {name}, {network}: no client would reach it"
            yield error("virtual-address-in-network", path, message, "choose one in the network of the nodes")
    if balancer.kind is Balancer.VULCAND:
        message = "vulcand runs wherever you like, so no node could have its address"
        yield error("virtual-address-unheard", path, message, "leave it out, or let the nodes run haproxy or nginx")
    binds = (*balancer.http, *balancer.https)
    if not any(bind.rpartition(":")[0] in EVERYWHERE - {"[::]"} for bind in binds):
        message = f"the balancer listens on {', '.join(binds) or 'nothing'}: nobody would answer at {address}"
        yield error("virtual-address-unheard", path, message, 'listen everywhere: `http: ["*:80"]`')
    if cluster.load_balancers and len(cluster.load_balancers) == 1:
        node = cluster.load_balancers[0]
        message = f"{node.name} alone has the role lb, so {address} has nowhere to move to"
        yield warning("virtual-address-alone", path, message, "give a second node the role lb")


def balancing_image(cluster: Cluster) -> Iterator[Issue]:
    """The image that the balancer is taken from is one of the mirror's, and nothing else says where it is from."""
    balancer, path = cluster.load_balancer, ("load_balancer", "image")
    if not balancer or not balancer.image:
        return
    known = [reference for image in cluster.mirrored_images for reference in image.references]
    if balancer.kind is Balancer.VULCAND:
        message = "vulcand runs wherever you like: no node takes it from an image"
        yield error("image-unused", path, message, "remove the key, or let the nodes run haproxy or nginx")
    elif str(balancer.kind) in cluster.artifacts:
        message = f"artifacts.{balancer.kind} says where {balancer.kind} is from, too"
        yield error("image-unused", path, message, "remove one of the two")
    elif balancer.image not in known:
        message = f"the mirror has no image {balancer.image} for {cluster.os.arch}"
        hint = (
            f"it has {', '.join(known[:3])}"
            if known
            else "add it: cluster mirror add-image FILE; and name mirror.folder"
        )
        # No error: it is by this very cluster.yaml that the image is added.
        yield warning("image-not-mirrored", path, f"{message}: nothing is balanced", hint)


def balancing_programs(cluster: Cluster) -> Iterator[Issue]:
    """The nodes with the role lb fetch the registrator: from where, and is it the one that was meant?"""
    for artifact in cluster.balancing_artifacts if cluster.load_balancers else ():
        if artifact.member == IMAGE:
            continue
        if not artifact.urls:
            message = f"no server is known to have {artifact.name} {artifact.version}".rstrip()
        elif not artifact.sha256:
            message = f"no checksum is known for {artifact.name} {artifact.version}".rstrip()
        else:
            continue
        place = f"{artifact.name}/{artifact.version}/{cluster.os.arch}/registrator.tar.gz"
        hint = f"give artifacts.{artifact.name} its url and sha256"
        if artifact.name == REGISTRATOR:
            hint = f"put what `make registrator` builds into the mirror's folder as {place}, or {hint}"
        yield warning("no-balancing-program", ("load_balancer",), f"{message}: nothing is balanced", hint)


RULES = (
    unique_names,
    unique_addresses,
    unique_macs,
    unique_ssh,
    control_plane,
    etcd_size,
    separate_networks,
    usable_networks,
    servers_outside,
    room_for_pods,
    own_pod_subnets,
    balancer_and_role,
    something_to_balance,
    virtual_address,
    balancing_image,
    balancing_programs,
)
