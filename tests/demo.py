"""The end of `make demo`: requests through the balancer of a lab's last node, and who takes them.

    python -m tests.demo FOLDER     the folder with the cluster.yaml of a lab of three machines

A web server on node-1 is announced in etcd, one on node-2 is an Ingress of the stand-in API server. HAProxy serves the
first and then both, nginx both. At the end everything is as `cluster init` left it, with the first web server.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from tests.fakes.kube_api import KubeApi
from tests.fakes.kube_objects import endpoint_slice, ingress, service

if TYPE_CHECKING:
    from collections.abc import Sequence

BALANCER = "node-3"
PORTS = {"hello": ("node-1", 8001), "shop": ("node-2", 8002)}
KUBECONFIG = "stand-in.kubeconfig"
WEB_SERVER = """
cat > /run/NAME.conf <<'EOF'
daemon off;
pid /run/NAME.pid;
error_log stderr;
events {}
http { access_log off; server { listen PORT; location / { return 200 "NAME on $hostname\\n"; } } }
EOF
systemctl --quiet is-active NAME || systemd-run --quiet --unit=NAME nginx -c /run/NAME.conf
. /run/coupler/identity.env
echo "$COUPLER_ADDRESS"
"""


class Demo:
    """A lab that is up, and its cluster.yaml."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "cluster.yaml"
        self.text = self.file.read_text()
        [self.domain] = re.findall(r"^  domain: (\S+)$", self.text, re.MULTILINE)
        [self.host] = re.findall(r"^  repository: git://([0-9.]+)/", self.text, re.MULTILINE)

    def cluster(self, *words: str, quiet: bool = False) -> str:
        """Run a command of `cluster`, and return what it answers."""
        argv = [str(Path(sys.executable).with_name("cluster")), *words]
        done = subprocess.run(argv, cwd=self.folder, stdout=subprocess.PIPE, text=True, check=True)
        if not quiet:
            say(f"+ cluster {' '.join(words)}", done.stdout.rstrip())
        return done.stdout

    def serve(self, name: str) -> str:
        """Run a web server on its node; return where it is reached."""
        node, port = PORTS[name]
        script = WEB_SERVER.replace("NAME", name).replace("PORT", str(port))
        return self.cluster("lab", "exec", node, "--", "sh", "-c", script, quiet=True).split()[-1]

    def request(self, name: str) -> None:
        """Make a request through the balancer, once its route is there."""
        curl = ["curl", "--silent", "--fail", "--header", f"Host: {name}.{self.domain}", "http://127.0.0.1/"]
        say(f"+ curl --header 'Host: {name}.{self.domain}' http://{BALANCER}/")
        deadline = time.monotonic() + 30
        while True:
            try:
                say(self.cluster("lab", "exec", BALANCER, "--", *curl, quiet=True).rstrip())
            except subprocess.CalledProcessError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return

    def change(self, *changes: tuple[str, str]) -> None:
        """Change the load balancer in cluster.yaml, and the cluster with it."""
        text = self.text
        for old, new in changes:
            text = text.replace(old, new)
        self.file.write_text(text)
        self.cluster("init", quiet=True)


def say(*lines: str) -> None:
    """Show lines as they come."""
    print(*lines, sep="\n", flush=True)  # noqa: T201 (a program)


async def demo(folder: Path) -> None:
    """Show it."""
    it = Demo(folder)
    hello, shop = it.serve("hello"), it.serve("shop")
    announce = f". /etc/profile.d/coupler.sh; etcdctl put /services/hello/node-1 {hello}:{PORTS['hello'][1]}"
    it.cluster("lab", "exec", "node-1", "--", "sh", "-c", announce, quiet=True)
    say("HAProxy, from an announcement in etcd:")
    it.request("hello")
    async with KubeApi(host=it.host) as api:
        port = PORTS["shop"][1]
        api.put(service("shop", port))
        api.put(endpoint_slice("shop-1", "shop", port, ("shop-1", shop, "ready")))
        api.put(ingress("shop", f"shop.{it.domain}", "shop"))
        (folder / KUBECONFIG).write_text(yaml.safe_dump(kubeconfig(api.url)))
        followed = ("load_balancer:\n", f"load_balancer:\n  kubeconfig: {KUBECONFIG}\n")
        try:
            await show(it, "HAProxy, from the stand-in API server, too:", followed)
            await show(it, "nginx, from both:", followed, ("  kind: haproxy\n", "  kind: nginx\n"))
        finally:
            (folder / KUBECONFIG).unlink()
            await asyncio.to_thread(it.change)
    await asyncio.to_thread(it.cluster, "lb", "list")


def kubeconfig(url: str) -> dict[str, object]:
    """Return a kubeconfig for an API server that asks for no credentials."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "stand-in", "cluster": {"server": url}}],
        "users": [{"name": "nobody", "user": {}}],
        "contexts": [{"name": "stand-in", "context": {"cluster": "stand-in", "user": "nobody"}}],
        "current-context": "stand-in",
    }


async def show(it: Demo, title: str, *changes: tuple[str, str]) -> None:
    """Change the load balancer, and ask both services through it."""
    say(title)
    await asyncio.to_thread(it.change, *changes)
    for name in PORTS:
        await asyncio.to_thread(it.request, name)
    await asyncio.to_thread(it.cluster, "lb", "list")


def main(arguments: Sequence[str]) -> None:
    """Show it for the lab in a folder."""
    asyncio.run(demo(Path(arguments[0])))


if __name__ == "__main__":
    main(sys.argv[1:])
