"""`cluster mirror` as a person types it."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import re
import shlex
import signal
import socketserver
import ssl
import subprocess
import sys
import tarfile
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from coupler.lab.pause import program, write_image

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

CLUSTER = """\
version: 1
name: demo
git: {repository: "git://10.0.0.5/demo.git", allowed_signers: []}
fleet: {enabled: false}
network: {flannel: {enabled: false}}
mirror: {url: "http://10.0.0.5:8080", folder: mirror}
nodes:
  - {name: node-1, address: 10.0.0.11, roles: [control, worker]}
"""


class Cluster:
    """The command, in a folder of its own and with data of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.variables = {**os.environ, "XDG_DATA_HOME": str(folder / "data")}

    def __call__(self, *arguments: str | Path, code: int = 0) -> str:
        """Run `cluster mirror`; return what it said."""
        argv = [sys.executable, "-m", "coupler", "mirror", *map(str, arguments)]
        done = subprocess.run(
            argv, cwd=self.folder, env=self.variables, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout if code == 0 else done.stdout + done.stderr

    def data(self, *arguments: str | Path) -> dict[str, Any]:
        """Run `cluster mirror`; return its data."""
        answer: dict[str, Any] = json.loads(self(*arguments, "--output", "json"))["data"]
        return answer

    def file(self, name: str, content: bytes) -> Path:
        """Write a file."""
        path = self.folder / name
        path.write_bytes(content)
        return path


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    return Cluster(tmp_path)


def test_a_mirror_is_filled_looked_at_and_held_to_its_checksums(cluster: Cluster) -> None:
    kubelet = cluster.file("my-kubelet", program() + b"1")
    kubelet.chmod(0o644)
    added = cluster("add", "kubelet", kubelet, "--version", "1.35.1")
    place = cluster.folder / "mirror/kubelet/1.35.1/amd64/kubelet"
    digest = hashlib.sha256(kubelet.read_bytes()).hexdigest()
    assert added.splitlines() == [
        f"added {place}",
        f"sha256 {digest}",
        "this is NOT the file that upstream published",
        "next: cluster init, for the nodes to fetch it",
    ]
    assert os.access(place, os.X_OK)
    assert cluster("add", "kubelet", kubelet, "--version", "1.35.1").startswith("unchanged")
    assert (cluster.folder / "mirror/SHA256SUMS").read_text() == f"{digest}  kubelet/1.35.1/amd64/kubelet\n"

    listed = cluster("list")
    assert re.search(r"^kubelet +1\.35\.1 +130 B +own checksum$", listed, re.MULTILINE)
    assert re.search(r"^kube-proxy +1\.35\.1 +- +missing$", listed, re.MULTILINE)
    assert "registry.k8s.io/pause:3.10, is not in the mirror" in listed
    assert "next: cluster mirror pull" in listed

    assert "1 file as listed, 0 not" in cluster("verify")
    place.write_bytes(program())
    place.with_name("by-hand").write_bytes(program())
    broken = cluster("verify", code=1)
    assert f"corrupt: kubelet/1.35.1/amd64/kubelet: its SHA-256 is not the listed one, {digest}" in broken
    assert "not listed: kubelet/1.35.1/amd64/by-hand" in broken
    indexed = cluster.data("verify", "--index")
    assert set(indexed["indexed"]) == {"kubelet/1.35.1/amd64/kubelet", "kubelet/1.35.1/amd64/by-hand"}
    assert {file["verdict"] for file in indexed["files"]} == {"good"}


def test_an_image_is_added_and_the_cluster_finds_its_sandbox(cluster: Cluster) -> None:
    with (cluster.folder / "pause.tar").open("wb") as file:
        write_image(file)
    assert cluster.data("list")["pause_image"] == "registry.k8s.io/pause:3.10"
    added = cluster("add-image", "pause.tar", "--name", "registry.example.org/pause:4")
    assert added.startswith("added registry.example.org/pause:4 as images/registry.example.org_pause_4_amd64.tar\n")
    assert cluster("add-image", "pause.tar", "--name", "registry.example.org/pause:4").startswith("unchanged")
    listed = cluster.data("list")
    assert listed["pause_image"] == "registry.example.org/pause:4"
    assert [image["references"] for image in listed["images"]] == [["registry.example.org/pause:4"]]
    assert "1 file as listed" in cluster("verify")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("add", "kubelte", "program", "--version", "1.35.1"), 2, "did you mean `kubelet`?"),
        (("add", "kubelet", "program"), 2, "add --version"),
        (("add", "kubelet", "program", "--version", "v1.35.1"), 2, "write 1.35.1"),
        (("add", "kubelet", "nothing", "--version", "1.35.1"), 2, "there is no file nothing"),
        (("add", "kubelet", "text", "--version", "1.35.1"), 1, "text is no program"),
        (("add", "kubelet", "half", "--version", "1.35.1"), 1, "half is a half file"),
        (
            ("add", "kubelet", "program", "--version", "1.35.1", "--arch", "arm64"),
            1,
            "is for amd64, and --arch says arm64",
        ),
        (("add", "kubelet", "program", "--version", "1.35.1", "--arch", "mips"), 2, "amd64 or arm64"),
        (("add-image", "text"), 1, "text is no archive"),
        (("serve", "--address", "192.0.2.1"), 2, "cluster mirror pull fills one"),
    ],
)
def test_what_cannot_be_is_refused_with_a_way_out(
    cluster: Cluster, arguments: tuple[str, ...], code: int, said: str
) -> None:
    cluster.file("program", program())
    cluster.file("half", program()[:-1])
    cluster.file("text", b"text")
    assert said in cluster(*arguments, code=code)
    assert not (cluster.folder / "mirror").exists()


def test_the_folder_is_the_one_named_else_the_clusters_else_the_labs(cluster: Cluster) -> None:
    assert cluster.data("list")["folder"] == str(cluster.folder / "mirror")
    assert cluster.data("list", "--mirror", "other")["folder"] == str(cluster.folder / "other")
    (cluster.folder / "cluster.yaml").write_text("nonsense")
    assert "expected keys" in cluster("list", code=3)
    assert cluster.data("list", "--mirror", "other")["needed"] is None
    (cluster.folder / "cluster.yaml").unlink()
    assert cluster.data("list")["folder"] == str(cluster.folder / "data/coupler/mirror")
    assert "cluster new" in cluster("pull", code=3)


def test_an_image_for_other_nodes_is_refused(cluster: Cluster) -> None:
    (cluster.folder / "cluster.yaml").write_text(CLUSTER + "os: {arch: arm64}\n")
    with (cluster.folder / "pause.tar").open("wb") as file:
        write_image(file)
    assert "holds an image for amd64, and the cluster's nodes are arm64" in cluster("add-image", "pause.tar", code=1)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let what a test starts hear Ctrl-C: a shell that runs the tests in the background has them ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_serve_answers_until_it_is_interrupted(cluster: Cluster, interruptible: None) -> None:
    cluster("add", "kubelet", cluster.file("kubelet", program()), "--version", "1.35.1")
    argv = [sys.executable, "-m", "coupler", "mirror", "serve", "--address", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(
        argv, cwd=cluster.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as server:
        assert server.stderr
        found = re.search(r"http://127\.0\.0\.1:(\d+)", server.stderr.readline())
        assert found
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=10)
        connection.request("GET", "/kubelet/1.35.1/amd64/kubelet", headers={"Range": "bytes=4-"})
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (206, program()[4:])
        for hidden in ("/.lock", "/kubelet/1.35.1/amd64/.draft"):
            connection.request("GET", hidden)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 404
        connection.close()
        server.send_signal(signal.SIGINT)
        assert server.communicate(timeout=20)[0] == "stopped\n"
    assert server.returncode == 0


def test_the_page_about_the_mirror_is_true(cluster: Cluster) -> None:
    page = (Path(__file__).parents[3] / "docs" / "mirror.md").read_text()
    cluster.file("kubelet", program())
    for name, members in {
        "etcd-v3.5.25-linux-amd64.tar.gz": [f"etcd-v3.5.25-linux-amd64/{part}" for part in ("etcd", "etcdctl")],
        "flannel.tgz": ["dist/flanneld"],
    }.items():
        with tarfile.open(cluster.folder / name, "w:gz") as archive:
            for member in members:
                entry = tarfile.TarInfo(member)
                entry.size = len(program())
                archive.addfile(entry, io.BytesIO(program()))
    for name in ("app.tar", "saved-by-id.tar"):
        with (cluster.folder / name).open("wb") as file:
            write_image(file)
    commands = [line for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    assert len(commands) > 5
    for command in commands:
        argv = shlex.split(command)
        assert argv[:2] == ["cluster", "mirror"]
        cluster(*argv[2:])
    listed = cluster.data("list")
    there = {entry["name"]: entry["place"] for entry in listed["needed"] if entry["place"]}
    assert {"kubelet", "etcd", "etcdctl"} <= set(there)
    for place in (there["kubelet"], there["etcd"]):
        assert place in page
    assert "registry.example.org/team/tool:1.0" in {name for image in listed["images"] for name in image["references"]}
    verbs = set(re.findall(r"^\| `cluster mirror (\S+?)[` ]", page, re.MULTILINE))
    assert verbs == set(re.findall(r"^  ([a-z-]+)  ", cluster("--help").partition("Commands:")[2], re.MULTILINE))


UPSTREAM = "dl.k8s.io"


class Proxy(socketserver.ThreadingTCPServer):
    """An HTTPS proxy that answers in place of the host asked for, with a certificate of its own."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, folder: Path, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Tunnel)
        self.files = files
        self.hosts: list[str] = []
        self.paths: list[str] = []
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "upstream")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName(UPSTREAM), x509.DNSName("github.com")]), critical=False
            )
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        self.certificate = folder / "upstream.pem"
        self.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        private = folder / "upstream.key"
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.certificate, private)


class Tunnel(socketserver.BaseRequestHandler):
    server: Proxy

    def handle(self) -> None:
        request = self._head(self.request)
        self.server.hosts.append(request.split()[1])
        self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with self.server.context.wrap_socket(self.request, server_side=True) as secured:
            path = self._head(secured).split()[1]
            self.server.paths.append(path)
            content = self.server.files.get(path)
            status = b"404 Not Found" if content is None else b"200 OK"
            body = content or b""
            secured.sendall(
                b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (status, len(body)) + body
            )

    @staticmethod
    def _head(stream: socket.socket) -> str:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += stream.recv(1)
        return head.decode()


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    with Proxy(tmp_path, {}) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def test_pull_brings_what_upstream_has_and_says_what_it_cannot(cluster: Cluster, proxy: Proxy) -> None:
    kubelet = program() + b"upstream's"
    digest = hashlib.sha256(kubelet).hexdigest()
    proxy.files["/release/v1.35.1/bin/linux/amd64/kubelet"] = kubelet
    proxy.files["/release/v1.35.1/bin/linux/amd64/kube-proxy"] = b"another file than was published"
    text = CLUSTER + f"artifacts: {{kubelet: {{sha256: {digest}}}, kubectl: {{version: 1.21.99}}}}\n"
    (cluster.folder / "cluster.yaml").write_text(text)
    cluster.variables |= {
        "https_proxy": f"http://127.0.0.1:{proxy.server_address[1]}",
        "no_proxy": "",
        "NO_PROXY": "",
        "SSL_CERT_FILE": str(proxy.certificate),
    }
    planned = cluster.data("pull", "--dry-run")
    assert f"https://{UPSTREAM}/release/v1.35.1/bin/linux/amd64/kubelet" in {file["url"] for file in planned["fetched"]}
    assert not (cluster.folder / "mirror").exists()
    assert proxy.paths == []

    said = cluster("pull", code=1)
    mirror = cluster.folder / "mirror"
    assert (mirror / "kubernetes/1.35.1/amd64/kubelet").read_bytes() == kubelet
    assert (mirror / "SHA256SUMS").read_text() == f"{digest}  kubernetes/1.35.1/amd64/kubelet\n"
    assert not list(mirror.glob("kubernetes/*/*/*kube-proxy*"))
    assert "what it has is another file" in said
    assert "the server says 404" in said
    assert "kubectl 1.21.99: its SHA-256 is not known" in said
    assert "set artifacts.kubectl.sha256 in cluster.yaml, or download https://dl.k8s.io/" in said
    assert "cluster mirror add kubectl FILE --version 1.21.99" in said
    assert set(proxy.hosts) == {f"{UPSTREAM}:443", "github.com:443"}
    assert re.search(r"^kubelet +1\.35\.1 +\S+ B +verified$", cluster("list"), re.MULTILINE)

    before = len(proxy.paths)
    (mirror / "kubernetes/1.35.1/amd64/kubelet").write_bytes(kubelet[:-1])
    cluster("pull", code=1)
    assert (mirror / "kubernetes/1.35.1/amd64/kubelet").read_bytes() == kubelet, "what is broken is fetched again"
    again = proxy.paths[before:]
    cluster("pull", code=1)
    assert sum("kubelet" in path for path in again) == 1
    assert not any("kubelet" in path for path in proxy.paths[before + len(again) :]), "what is whole is not"
