"""The client and its credentials, with real TLS, tokens and certificates that are replaced while it runs."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.fakes.kube_api import KubeApi
from tests.fakes.kube_store import V1_2, V1_21, V1_32

from coupler.errors import ConfigurationError, CouplerError
from coupler.registrator.sources.kubernetes.access import Access, in_cluster, plain
from coupler.registrator.sources.kubernetes.client import ApiClient, ApiError
from coupler.registrator.sources.kubernetes.credentials import Credentials

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

UNCHANGED = (Path(__file__),)  # an access without a file is never read again
PODS, LEASES = "/api/v1/pods", "/apis/coordination.k8s.io/v1/namespaces/default/leases"


@dataclass
class Authority:
    """A certificate authority of one test."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def new(cls, name: str = "authority") -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(key, _certificate(name, key, key, name, None))

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, name: str, *hosts: str) -> tuple[bytes, bytes]:
        """Return a certificate and its key as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        certificate = _certificate(name, key, self.key, str(issuer), hosts)
        kind, no_password = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return (
            certificate.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(serialization.Encoding.PEM, kind, no_password),
        )

    def server(self, folder: Path, *hosts: str, clients: bool = False) -> ssl.SSLContext:
        certificate, key = self.issue("server", *hosts)
        (folder / "server.pem").write_bytes(certificate + key)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(folder / "server.pem")
        if clients:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=self.pem.decode())
        return context


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey, by: str, hosts: Any
) -> x509.Certificate:
    subject, issuer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (name, by))
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - dt.timedelta(hours=1))
    builder = builder.not_valid_after(now + dt.timedelta(hours=1))
    builder = builder.add_extension(x509.BasicConstraints(ca=hosts is None, path_length=None), critical=True)
    if hosts:
        names = [x509.IPAddress(ipaddress.ip_address(h)) if h[0].isdigit() else x509.DNSName(h) for h in hosts]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(signer, hashes.SHA256())


def with_client(
    api: KubeApi, read: Callable[[], Access], scenario: Callable[[ApiClient, Credentials], Awaitable[None]]
) -> None:
    async def run() -> None:
        async with api:
            credentials = Credentials(read)
            client = ApiClient(credentials, connect_seconds=2.0, read_seconds=2.0)
            try:
                await scenario(client, credentials)
            finally:
                await client.close()

    asyncio.run(run())


def lease(**spec: Any) -> dict[str, Any]:
    metadata = {"name": "registrator", "namespace": "default"}
    return {"kind": "Lease", "apiVersion": "coordination.k8s.io/v1", "metadata": metadata, "spec": spec}


def test_objects_are_made_read_replaced_and_patched() -> None:
    api = KubeApi(V1_21)

    async def scenario(client: ApiClient, _credentials: Credentials) -> None:
        made = await client.post(LEASES, lease(holderIdentity="a", leaseDurationSeconds=15))
        assert await client.get(f"{LEASES}/registrator") == made
        renewed = await client.put(f"{LEASES}/registrator", made | {"spec": {"holderIdentity": "b"}})
        assert renewed["spec"] == {"holderIdentity": "b"}
        with pytest.raises(ApiError) as error:
            await client.put(f"{LEASES}/registrator", made)
        assert (error.value.status, error.value.reason) == (409, "Conflict")
        assert error.value.details["name"] == "registrator"
        patched = await client.patch(f"{LEASES}/registrator", {"spec": {"holderIdentity": None}})
        assert patched["spec"] == {}
        page = await client.list(LEASES, {"labelSelector": "a in (b,c),!d"})
        assert (page["kind"], page["items"]) == ("LeaseList", [])
        assert "labelSelector=a+in+%28b%2Cc%29%2C%21d" in api.requests[-1]

    with_client(api, lambda: plain(api.url), scenario)


@pytest.mark.parametrize(("personality", "version"), [(V1_2, (1, 2)), (V1_21, (1, 21)), (V1_32, (1, 32))])
def test_the_servers_version_is_read(personality: Any, version: tuple[int, int]) -> None:
    api = KubeApi(personality)

    async def scenario(client: ApiClient, _credentials: Credentials) -> None:
        assert await client.version() == version
        assert await client.version() == version
        assert api.requests == ["GET /version"]

    with_client(api, lambda: plain(api.url), scenario)


def test_refusals_are_errors_with_what_the_server_said() -> None:
    api = KubeApi(V1_21)

    async def scenario(client: ApiClient, _credentials: Credentials) -> None:
        with pytest.raises(CouplerError) as error:
            await client.get("/apis/nosuch.io/v1/things")
        assert error.value.what == "the API server answered 404 to GET /apis/nosuch.io/v1/things"
        assert error.value.why == "404 page not found"
        api.too_many(1, retry_after=7)
        with pytest.raises(ApiError) as refused:
            await client.list(PODS)
        assert (refused.value.status, refused.value.retry_after) == (429, 7.0)
        with pytest.raises(ApiError) as refused:
            await client.list(PODS, {"resourceVersion": "99999999"})
        assert (refused.value.status, refused.value.reason, refused.value.retry_after) == (504, "Timeout", 1.0)
        api.powerless.add("")
        with pytest.raises(ApiError, match="403 Forbidden") as refused:
            await client.list(PODS)
        assert "ClusterRole" in str(refused.value.next_step)
        api.down()
        with pytest.raises(ApiError, match="does not answer") as refused:
            await client.list(PODS)
        assert refused.value.status == 0

    api.scale = 0.01
    with_client(api, lambda: plain(api.url), scenario)


def test_answers_that_are_none_are_errors() -> None:
    answers = {
        "/redirect": web.Response(status=302, headers={"Location": "/version"}),
        "/html": web.Response(text="<html>", content_type="text/html"),
        "/number": web.Response(text="5", content_type="application/json"),
        "/empty": web.Response(status=500),
        "/list": web.Response(status=503, text="[1]", content_type="application/json"),
        "/nothing": web.Response(text='{"metadata": {"resourceVersion": "5"}, "items": null}'),
    }
    asked: list[str] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        asked.append(request.path)
        return answers[request.path]

    async def run() -> None:
        runner = web.ServerRunner(web.Server(handle))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        client = ApiClient(Credentials(lambda: plain(url)))
        try:
            for path in ("/redirect", "/html", "/number", "/empty", "/list"):
                with pytest.raises(ApiError) as error:
                    await client.list(path)
                assert error.value.why
            assert (await client.list("/nothing"))["items"] == []
            assert asked == list(answers)
        finally:
            await client.close()
            await runner.cleanup()

    asyncio.run(run())


def test_a_service_accounts_token_is_replaced_while_the_program_runs(tmp_path: Path) -> None:
    authority = Authority.new()
    api = KubeApi(V1_32, tls=authority.server(tmp_path, "127.0.0.1"), tokens=("first", "second", "third"))
    (tmp_path / "token").write_text("first")
    (tmp_path / "ca.crt").write_bytes(authority.pem)

    def read() -> Access:
        environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(api.port)}
        return in_cluster(tmp_path, environment)

    async def scenario(client: ApiClient, credentials: Credentials) -> None:
        await client.list(PODS)
        tls = (await credentials.current()).tls
        (tmp_path / "token").write_text("second\n")
        api.unauthorized("first")
        await client.list(PODS)
        current = await credentials.current()
        assert current.access.token == "second"
        assert current.tls is tls, "a token is no reason to make new connections"
        (tmp_path / "token").write_text("")
        await client.list(PODS)
        assert "no token" in str(credentials.problem)
        (tmp_path / "token").write_text("third")
        await client.list(PODS)
        assert credentials.problem is None
        api.unauthorized("third")
        with pytest.raises(ApiError, match="401 Unauthorized"):
            await client.list(PODS)

    with_client(api, read, scenario)


def test_a_token_that_is_refused_is_read_again_at_once() -> None:
    """Even where nothing shows that the file has changed, and for a watch as well."""
    api = KubeApi(V1_32, tokens=("new",))
    tokens = ["old"]

    async def scenario(client: ApiClient, _credentials: Credentials) -> None:
        with pytest.raises(ApiError, match="401"):
            await client.list(PODS)
        assert len(api.requests) == 1
        tokens[0] = "new"
        await client.list(PODS)
        api.tokens, tokens[0] = {"newer"}, "newer"
        api.requests.clear()
        async with client.watch(PODS, {"watch": "1", "resourceVersion": "5", "timeoutSeconds": "1"}) as stream:
            stream.close()
        assert len(api.requests) == 2

    with_client(api, lambda: Access(api.url, token=tokens[0], files=UNCHANGED), scenario)


def test_a_token_is_never_older_than_a_minute() -> None:
    now, tokens = [0.0], ["first"]

    async def run() -> None:
        credentials = Credentials(
            lambda: Access("http://api.test", token=tokens[0], files=UNCHANGED), clock=lambda: now[0]
        )
        assert (await credentials.current()).access.token == "first"
        tokens[0] = "second"
        now[0] = 59.0
        assert (await credentials.current()).access.token == "first"
        now[0] = 61.0
        assert (await credentials.current()).access.token == "second"

    asyncio.run(run())


def test_a_client_certificate_is_replaced_while_the_program_runs(tmp_path: Path) -> None:
    authority = Authority.new()
    seen: list[str] = []
    api = KubeApi(V1_32, tls=authority.server(tmp_path, "127.0.0.1", clients=True))
    certificate, key = tmp_path / "client.pem", tmp_path / "client.key"

    def put(pair: tuple[bytes, bytes]) -> None:
        certificate.write_bytes(pair[0])
        key.write_bytes(pair[1])

    def read() -> Access:
        files = (certificate, key)
        return Access(api.url, None, authority.pem, certificate.read_bytes(), key.read_bytes(), None, files)

    async def scenario(client: ApiClient, credentials: Credentials) -> None:
        answer = api._answer

        async def look(request: web.BaseRequest) -> web.StreamResponse:
            assert request.transport is not None
            peer = dict(field[0] for field in request.transport.get_extra_info("peercert")["subject"])
            seen.append(peer["commonName"])
            return await answer(request)

        api._answer = look  # type: ignore[method-assign]
        await client.list(PODS)
        first, second = authority.issue("first"), authority.issue("second")
        put((first[0], second[1]))  # in the middle of a rotation: they do not fit
        await client.list(PODS)
        assert "client certificate" in str(credentials.problem)
        put(second)
        await client.list(PODS)
        assert credentials.problem is None
        put(Authority.new("stranger").issue("stranger"))
        with pytest.raises(ApiError, match="does not answer"):
            await client.list(PODS)
        assert seen == ["zeroth", "zeroth", "second"]

    put(authority.issue("zeroth"))
    with_client(api, read, scenario)


def test_a_server_is_believed_only_with_a_certificate_of_the_authority_for_its_name(tmp_path: Path) -> None:
    authority, stranger = Authority.new(), Authority.new("stranger")
    api = KubeApi(V1_32, tls=authority.server(tmp_path, "kubernetes.test"))
    access: list[Access] = []

    async def scenario(client: ApiClient, credentials: Credentials) -> None:
        for change, fits in (
            ({}, False),
            ({"server_name": "kubernetes.test"}, True),
            ({"server_name": "other.test"}, False),
            ({"server_name": "kubernetes.test", "authority": stranger.pem}, False),
        ):
            access[:] = [Access(api.url, **({"authority": authority.pem, "files": (tmp_path,)} | change))]  # type: ignore[arg-type]
            credentials.doubt()
            if fits:
                await client.list(PODS)
            else:
                with pytest.raises(ApiError, match="does not answer") as error:
                    await client.list(PODS)
                assert "certificate" in str(error.value.why).lower()

    with_client(api, lambda: access[0], scenario)


@pytest.mark.parametrize("part", ["authority", "certificate", "key"])
def test_what_is_no_pem_is_named(part: str, tmp_path: Path) -> None:
    authority = Authority.new()
    certificate, key = authority.issue("client")
    parts = {"authority": authority.pem, "certificate": certificate, "key": key} | {part: "nötig".encode()}

    async def run() -> None:
        access = Access("https://api.test", files=(tmp_path / "kubeconfig",), **parts)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="cannot be used") as error:
            await Credentials(lambda: access).current()
        assert str(tmp_path / "kubeconfig") in str(error.value)

    asyncio.run(run())
