"""Where the API server is, by environment, kubeconfig or URL; and what is said when that cannot be used."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from coupler.errors import ConfigurationError
from coupler.registrator.sources.kubernetes.access import Access, in_cluster, kubeconfig, plain

if TYPE_CHECKING:
    from pathlib import Path


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def write(folder: Path, cluster: dict[str, Any], user: dict[str, Any] | None, **more: Any) -> Path:
    context = {"cluster": "lab", "user": "registrator"} if user is not None else {"cluster": "lab"}
    tree = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": context}],
        "clusters": [{"name": "lab", "cluster": {"server": "https://api.test:6443"} | cluster}],
        "users": [{"name": "registrator", "user": user or {}}],
    } | more
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_a_plain_url_asks_for_nothing() -> None:
    assert plain("http://127.0.0.1:8080/") == Access("http://127.0.0.1:8080")


@pytest.mark.parametrize("url", ["", "127.0.0.1:8080", "ftp://a", "http://", "http://a:port", "http://[::1"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="is no URL"):
        plain(url)


def test_a_pod_uses_its_service_account(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    (tmp_path / "ca.crt").write_text("pem")
    environment = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    access = in_cluster(tmp_path, environment)
    assert (access.server, access.token, access.authority) == ("https://[fd00::1]:443", "secret", b"pem")
    assert access.files == (tmp_path / "token", tmp_path / "ca.crt")
    assert "secret" not in repr(access)


@pytest.mark.parametrize(("token", "said"), [(None, "cannot be read"), ("", "no token"), ("a\nb", "no token")])
def test_a_pod_without_a_usable_token_says_so(tmp_path: Path, token: str | None, said: str) -> None:
    if token is not None:
        (tmp_path / "token").write_text(token)
    environment = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    with pytest.raises(ConfigurationError, match=said) as error:
        in_cluster(tmp_path, environment)
    assert str(tmp_path / "token") in str(error.value)


def test_outside_of_a_pod_there_is_no_service_account(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no API server") as error:
        in_cluster(tmp_path, {})
    assert "kubeconfig" in str(error.value.next_step)


def test_a_kubeconfig_has_everything_in_it_or_in_files_beside_it(tmp_path: Path) -> None:
    for name in ("ca.pem", "me.pem", "me.key", "token"):
        (tmp_path / name).write_text(f"{name} of a file")
    files = write(
        tmp_path,
        {"certificate-authority": "ca.pem", "tls-server-name": "kubernetes"},
        {"client-certificate": "me.pem", "client-key": str(tmp_path / "me.key"), "tokenFile": "token", "token": "old"},
    )
    access = kubeconfig(files)
    assert access == Access(
        "https://api.test:6443",
        "token of a file",
        b"ca.pem of a file",
        b"me.pem of a file",
        b"me.key of a file",
        "kubernetes",
        access.files,
    )
    assert set(access.files) == {files, *(tmp_path / name for name in ("ca.pem", "me.pem", "me.key", "token"))}
    data = write(
        tmp_path,
        {"certificate-authority-data": b64("ca"), "certificate-authority": "ca.pem"},
        {"client-certificate-data": b64("cert"), "client-key-data": b64("key"), "token": "direct"},
    )
    access = kubeconfig(data)
    assert (access.authority, access.certificate, access.key, access.token) == (b"ca", b"cert", b"key", "direct")
    assert access.files == (data,)


def test_another_context_may_be_asked_for(tmp_path: Path) -> None:
    contexts = [{"name": "here", "context": {"cluster": "lab"}}, {"name": "there", "context": {"cluster": "far"}}]
    clusters = [{"name": "far", "cluster": {"server": "https://far.test"}}]
    path = write(tmp_path, {}, None, contexts=contexts, clusters=clusters)
    assert kubeconfig(path, "there").server == "https://far.test"
    with pytest.raises(ConfigurationError, match="'lab'; it has far"):
        kubeconfig(path)


EXEC = {"exec": {"command": "aws"}}
WRONG = [
    ({"insecure-skip-tls-verify": True}, {}, "clusters[lab].cluster.insecure-skip-tls-verify", "refused"),
    ({"proxy-url": "http://proxy"}, {}, "clusters[lab].cluster.proxy-url", "not supported"),
    ({"server": "api.test"}, {}, "clusters[lab].cluster.server", "is no URL"),
    ({"server": None}, {}, "clusters[lab].cluster.server", "is no URL"),
    ({"certificate-authority-data": "%"}, {}, "clusters[lab].cluster.certificate-authority-data", "base64"),
    ({"certificate-authority": "no.pem"}, {}, "clusters[lab].cluster.certificate-authority", "cannot be read"),
    ({}, EXEC, "users[registrator].user.exec", "not supported"),
    ({}, {"auth-provider": {"name": "gcp"}}, "users[registrator].user.auth-provider", "not supported"),
    ({}, {"username": "a", "password": "b"}, "users[registrator].user.username", "not supported"),
    ({}, {"as": "root"}, "users[registrator].user.as", "not supported"),
    ({}, {"token": 12}, "users[registrator].user.token", "is no text"),
    ({}, {"tokenFile": "absent"}, "users[registrator].user.tokenFile", "cannot be read"),
    ({}, {"client-certificate-data": b64("x")}, "users[registrator].user.client-key", "missing"),
    ({}, {"client-key-data": b64("x")}, "users[registrator].user.client-certificate", "missing"),
]


@pytest.mark.parametrize(("cluster", "user", "place", "said"), WRONG, ids=[f"{case[2]}-{case[3]}" for case in WRONG])
def test_what_cannot_be_used_is_named(
    tmp_path: Path, cluster: dict[str, Any], user: dict[str, Any], place: str, said: str
) -> None:
    path = write(tmp_path, cluster, user)
    with pytest.raises(ConfigurationError) as error:
        kubeconfig(path)
    assert str(path) in str(error.value)
    assert place in str(error.value)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "is not YAML"),
        ("[]", "a mapping is expected"),
        ("{}", "current-context: is not set"),
        ("current-context: x", "contexts: has no 'x'; it has nothing"),
        ("{current-context: x, contexts: 5}", "contexts: is no list"),
        ("{current-context: x, contexts: [{name: x, context: []}]}", "clusters: has no ''"),
        ("{current-context: x, contexts: [{name: x, context: 5}]}", "contexts[x].context: is no mapping"),
    ],
)
def test_what_is_no_kubeconfig_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as error:
        kubeconfig(path)
    assert str(path) in str(error.value)
    assert said in str(error.value)
