"""The local lab: real systemd machines on this host, for trying a cluster and for the project's own tests.

Nothing else of the project knows about it: after `up` its machines are hosts like any other.
"""

from coupler.lab.clusterfile import lab_cluster_yaml
from coupler.lab.lab import Lab, LabStatus, MachineStatus, shared_mirror
from coupler.lab.machine import Machine, Power
from coupler.lab.requirements import Requirement, requirements

__all__ = [
    "Lab",
    "LabStatus",
    "Machine",
    "MachineStatus",
    "Power",
    "Requirement",
    "lab_cluster_yaml",
    "requirements",
    "shared_mirror",
]
