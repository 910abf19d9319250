"""vulcand as a balancer: the keys in etcd that it follows.

What vulcand does with keys was recorded and is told in `docs/registrator-vulcand.md`; a comment here names the trap.
"""
