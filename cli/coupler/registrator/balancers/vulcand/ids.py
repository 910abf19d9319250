"""Names of keys: which are ours is told by the name alone, and no name begins another one.

A name is `<digest>-<owner>.<rest>`, with the digest of what follows it. Whoever reads it can tell that we made it, in
an empty directory too; and because digests are of one length, vulcand, which compares beginnings, takes none for
another.
"""

from __future__ import annotations

from hashlib import blake2b

from coupler.registrator.names import digest, safe_name

_DIGITS = 8


def backend_id(owner: str, backend: str) -> str:
    """Return the name of a backend's keys."""
    return _own(owner, safe_name(backend))


def frontend_id(owner: str, expression: str, stem: str) -> str:
    """Return the name of the keys of the frontend with this route: no two of ours have one route, or one name."""
    long = blake2b(expression.encode(), digest_size=8).hexdigest()
    return _own(owner, f"{safe_name(stem)}.{long}")


def probe_id(owner: str) -> str:
    """Return the name of the backend and the frontend that only show whether vulcand follows etcd."""
    return _own(owner, "-probe")


def host_id(owner: str, host: str) -> str:
    """Return the name of the key of a host with a certificate; an empty one is for all names that no other has."""
    return _own(owner, f"{safe_name(host)}.tls" if host else "-any.tls")


def server_id(url: str) -> str:
    """Return the name of a server's key: two endpoints with one address are one server, as they are to vulcand."""
    return f"{digest(url)}-{safe_name(url.partition('://')[2])}"


def is_ours(owner: str, name: str) -> bool:
    """Return whether `name` is one that we gave to a backend, a frontend or a host."""
    rest = name[_DIGITS + 1 :]
    return rest.startswith(f"{owner}.") and name == f"{digest(rest)}-{rest}"


def _own(owner: str, rest: str) -> str:
    return f"{digest(f'{owner}.{rest}')}-{owner}.{rest}"
