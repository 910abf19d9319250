"""pyinfra's deploy: run the node's script as root."""

from pyinfra import host
from pyinfra.operations import server

server.script(name="Make a node of this machine", src=host.data.script, _sudo=True)
