"""What `cluster init` is measured against: the same work on the nodes, driven by less.

Keys, certificates, the document and its commit are there beforehand; each node gets one script over one connection.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.measure import timed

from coupler.assets import asset
from coupler.model import load_cluster
from coupler.render import render_boot_stub
from coupler.workflows.bundles import bundle
from coupler.workflows.certificates import Store
from coupler.workflows.steps.bootstrap import node_files
from coupler.workflows.workspace import Workspace, write

if TYPE_CHECKING:
    from coupler.model import Cluster, Node

_DEPLOY = Path(__file__).parent / "pyinfra_deploy.py"

# Install the files and apply the boot stub as the role does, pull, and wait until etcd is healthy: what `init` does.
_SCRIPT = """\
check=false bundle='{bundle}'
(
{install}
)
systemctl start coupler-pull.service
. /run/coupler/identity.env
pki=/etc/coupler/pki/etcd
healthy() {{
    curl --silent --cacert $pki/ca.crt --cert $pki/client.crt --key $pki/client.key \\
        "https://$COUPLER_ADDRESS:2379/health" | grep -q '"health": *"true"'
}}
if [ -e /run/coupler/roles/etcd ]; then until healthy; do sleep 0.1; done; fi
"""


class Floor:
    """A cluster that `cluster init` has published, whose machines were made anew since."""

    def __init__(self, file: Path) -> None:
        self._cluster: Cluster = load_cluster(file).cluster
        self._workspace = Workspace.beside(file)

    def openssh(self) -> float:
        """Do the work over one plain OpenSSH connection per node, all at once; return the seconds it took."""
        began = time.perf_counter()
        with ThreadPoolExecutor(max_workers=len(self._cluster.nodes)) as pool:
            ssh = partial(timed, cwd=self._workspace.root)
            for done in [pool.submit(ssh, self._ssh(node), stdin=self.script(node)) for node in self._cluster.nodes]:
                done.result()
        return time.perf_counter() - began

    def pyinfra(self, folder: Path) -> float:
        """Let pyinfra do the work, as one script per node; return the seconds it took."""
        hosts = []
        for node in self._cluster.nodes:
            script = folder / f"{node.name}.sh"
            write(script, f"#!/bin/sh\n{self.script(node)}".encode(), 0o700)
            login = {
                "ssh_hostname": str(node.ssh_address),
                "ssh_user": node.ssh_user,
                "ssh_key": str(self._cluster.ssh.private_key),
                "ssh_known_hosts_file": str(self._cluster.ssh.known_hosts),
                "ssh_strict_host_key_checking": "yes",
                "script": str(script),
            }
            hosts.append((node.name, login))
        inventory = folder / "inventory.py"
        inventory.write_text(f"nodes = {hosts!r}\n")
        return timed([sys.executable, "-m", "pyinfra", "--yes", str(inventory), str(_DEPLOY)], folder)

    def script(self, node: Node) -> str:
        """Return what a node does."""
        store = Store(self._workspace.pki, self._cluster)
        files = bundle(node_files(node, render_boot_stub(self._cluster).encode(), store))
        scripts = (
            asset("playbooks") / "action_plugins" / "bundle.sh",
            asset("roles") / "bootstrap" / "files" / "install.sh",
        )
        install = "".join(script.read_text() for script in scripts)
        return _SCRIPT.format(bundle=files.decode(), install=install)

    def _ssh(self, node: Node) -> list[str]:
        options = (
            *("BatchMode=yes", "StrictHostKeyChecking=yes", f"UserKnownHostsFile={self._cluster.ssh.known_hosts}"),
            *("IdentitiesOnly=yes", f"IdentityFile={self._cluster.ssh.private_key}"),
        )
        flags = [flag for option in options for flag in ("-o", option)]
        return ["ssh", "-F", "none", *flags, f"{node.ssh_user}@{node.ssh_address}", "sudo -n sh -s"]
