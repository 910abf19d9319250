"""The text of a new cluster.yaml: every key with a comment, defaults behind `#`."""

from __future__ import annotations

from pathlib import Path
from string import Template

from pydantic_core import PydanticCustomError

from coupler.errors import UsageError
from coupler.model.components import Etcd, Kubernetes
from coupler.model.fields import name_of
from coupler.model.fleet import Fleet
from coupler.model.network import Flannel


def scaffold(name: str) -> str:
    """Return the text of a new cluster.yaml for the cluster `name`.

    Raises:
        UsageError: the name is no DNS label.
    """
    try:
        name_of(name)
    except PydanticCustomError as error:
        raise UsageError(error.message(), next_step=(error.context or {}).get("hint")) from None
    kubernetes = Kubernetes()
    return Template(Path(__file__).with_name("scaffold.yaml").read_text(encoding="utf-8")).safe_substitute(
        name=name,
        etcd=Etcd().version,
        flannel=Flannel().version,
        fleet=Fleet().version,
        kubernetes=kubernetes.version,
        cni_plugins=kubernetes.cni_plugins_version,
    )
