"""The cluster.yaml that `cluster lab up` writes: an ordinary one, whose machines happen to be the lab's."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from coupler.lab.mirror import ARCHITECTURE
from coupler.lab.versions import Chosen, Versions, choose
from coupler.mirror.folder import Folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
  # More programs: cluster mirror add NAME FILE --version V; images: cluster mirror add-image FILE.
  # `cluster mirror list` shows what is there, and what this cluster lacks.
  url: {mirror_url}
  folder: {mirror_folder}
  # The machines have no way to the internet.
  only: true

{versions}

# HAProxy on the node with the role lb, for what is announced in etcd: etcdctl put /services/NAME/ONE ADDRESS:PORT
load_balancer:
  kind: haproxy
  domain: {name}.example
{balanced}
nodes:
{nodes}
"""


def lab_cluster_yaml(name: str, machines: Sequence[Machine], lab: Lab) -> str:
    """Return the text of a cluster.yaml for `machines` of `lab`.

    Up to three machines are all control plane and worker; of more, the first three are the control plane. The last one
    also balances. The versions are those that the lab's mirror has.
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
    found = choose(Folder(lab.mirror_folder).checksums(), ARCHITECTURE)
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
        versions="\n".join(_versions(found)),
        balanced="".join(f"{line}\n" for line in _balanced(found)),
        nodes="\n".join(nodes),
    )


def _balanced(found: Versions) -> Iterator[str]:
    """Yield what the load balancer follows besides announcements: Kubernetes, where an addon can give it the rights."""
    if found.applies:
        yield from _comment("And for annotated Services and pods, Ingresses and Gateways of Kubernetes.")
        yield "  kubernetes: true"


def _versions(found: Versions) -> Iterator[str]:
    """Yield the lines of the sections that set versions, with comments that say where each comes from."""
    yield "etcd:"
    yield from _version("version", found.etcd)
    yield "  # A bridge is quick. Over a real network keep the defaults, 100 and 1000."
    yield from ("  heartbeat_interval: 50", "  election_timeout: 250", "")
    if found.flannel.version or found.kubernetes.version:
        yield "network:"
        if found.flannel.version:
            yield from ("  flannel:", *(f"  {line}" for line in _version("version", found.flannel)))
        else:
            yield from _comment(f"{found.flannel.why} The machines share one bridge: routes lead to each other's pods.")
            yield "  flannel: {enabled: false}"
        yield ""
    if found.fleet.version:
        yield "fleet:"
        yield from _version("version", found.fleet)
        yield ""
    yield "kubernetes:"
    if not found.kubernetes.version:
        yield from _comment(f"{found.kubernetes.why} Its units wait for their programs. Add them to the mirror:")
        yield "  #   cluster mirror add kubelet FILE --version 1.35.1"
        yield from _comment(
            "and likewise kube-apiserver, kube-controller-manager, kube-scheduler, kube-proxy and kubectl; then say "
            "here which version they are, and run `cluster init` again."
        )
        yield "  #version: 1.35.1"
    yield from _version("version", found.kubernetes)
    yield from _version("cni_plugins_version", found.cni_plugins)
    yield from (
        "  addons:",
        "    # The machines have no name server to ask for other names.",
        "    coredns: {upstreams: []}",
    )
    if found.extras:
        yield from ("", "artifacts:")
    for name, extra in found.extras.items():
        yield f"  {name}:"
        yield from (f"  {line}" for line in _version("version", extra))


def _version(key: str, chosen: Chosen) -> Iterator[str]:
    if chosen.version:
        yield from _comment(chosen.why)
        yield f"  {key}: {_quoted(chosen.version)}"


def _comment(text: str, indent: int = 2) -> list[str]:
    return textwrap.wrap(text, 110, initial_indent=" " * indent + "# ", subsequent_indent=" " * indent + "# ")


def _quoted(value: object) -> str:
    """Return `value` as a double-quoted YAML scalar (YAML 1.2, 7.3.1)."""
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
