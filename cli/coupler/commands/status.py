"""`cluster status`: what every node is at."""

from __future__ import annotations

from coupler.commands.verb import ClusterFile, Limit, open_cluster, verb
from coupler.result import Result


@verb
def status(file: ClusterFile = None, limit: Limit = None) -> Result:
    """Show nodes, published and applied commits, units, etcd members and certificate expiry."""
    from coupler.workflows.status import status as run_status

    return run_status(open_cluster(file), limit=limit or ())
