"""cluster.yaml, version 1: what a cluster is."""

from coupler.model.catalogue import Artifact
from coupler.model.cluster import Cluster
from coupler.model.files import Certificate, Extra
from coupler.model.load import LoadedCluster, find_cluster_file, load_cluster
from coupler.model.node import Node, Role
from coupler.model.system import Arch, Channel, Distribution, Strategy

__all__ = [
    "Arch",
    "Artifact",
    "Certificate",
    "Channel",
    "Cluster",
    "Distribution",
    "Extra",
    "LoadedCluster",
    "Node",
    "Role",
    "Strategy",
    "find_cluster_file",
    "load_cluster",
]
