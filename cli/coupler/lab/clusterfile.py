"""The cluster.yaml that `cluster lab up` writes: an ordinary one, whose machines happen to be the lab's."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coupler.lab.image import Image
    from coupler.lab.lab import Lab
    from coupler.lab.machine import Machine

_CONTROL_PLANE = 3

_TEMPLATE = """\
# A cluster of {count} lab machines on this host. Nothing in it is special: change it as you would for real machines,
# then run `cluster check`.
version: 1
name: {name}

ssh:
  private_key: {private_key}
  # The lab knows its machines' host keys, so none is taken on trust.
  known_hosts: {known_hosts}
  host_keys: strict
  authorized_keys:
    - {public_key}

git:
  repository: {repository_url}
  # This host publishes into the repository itself; the machines read it from the lab's git server.
  push: {repository_path}
  signing_key: {private_key}
  allowed_signers:
    - lab {signer}

mirror:
  # Put a program into NAME/VERSION/amd64/NAME below this folder and run `cluster lab up`: the machines then find it.
  url: {mirror_url}
  folder: {mirror_folder}
  # The machines have no way to the internet.
  only: true

etcd:
  # The etcd of the Debian release that the machines are made from.
  version: {etcd_version}
  # A bridge is quick. Over a real network keep the defaults, 100 and 1000.
  heartbeat_interval: 50
  election_timeout: 250

kubernetes:
  cni_plugins_version: {cni_version}

# HAProxy on the node with the role lb, for what is announced in etcd: etcdctl put /services/NAME/ONE ADDRESS:PORT
load_balancer:
  kind: haproxy
  domain: {name}.example

nodes:
{nodes}
"""


def lab_cluster_yaml(name: str, machines: Sequence[Machine], lab: Lab, image: Image) -> str:
    """Return the text of a cluster.yaml for `machines` of `lab`.

    Up to three machines are all control plane and worker; of more, the first three are the control plane. The last one
    also balances.
    """
    nodes = []
    for number, machine in enumerate(machines):
        if len(machines) <= _CONTROL_PLANE:
            roles = "control, worker"
        else:
            roles = "control" if number < _CONTROL_PLANE else "worker"
        if machine is machines[-1]:
            roles += ", lb"
        nodes += [
            f"  - name: {machine.name}",
            f"    address: {machine.address}",
            f'    mac: "{machine.mac}"',
            f"    roles: [{roles}]",
        ]
    return _TEMPLATE.format(
        name=name,
        count=len(machines),
        private_key=_quoted(lab.private_key),
        known_hosts=_quoted(lab.known_hosts),
        public_key=_quoted(lab.public_key),
        repository_url=lab.repository_url,
        repository_path=_quoted(lab.repository_path),
        signer=" ".join(lab.public_key.split()[:2]),
        mirror_url=lab.mirror_url,
        mirror_folder=_quoted(lab.mirror_folder),
        etcd_version=_quoted(image.version("etcd")),
        cni_version=_quoted(image.version("cni-plugins")),
        nodes="\n".join(nodes),
    )


def _quoted(value: object) -> str:
    """Return `value` as a double-quoted YAML scalar (YAML 1.2, 7.3.1)."""
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
