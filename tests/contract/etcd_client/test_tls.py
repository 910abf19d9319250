"""The client of etcd over TLS, with a certificate of its own that is renewed while it runs."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tests.contract.etcd import Etcd

from coupler.registrator.etcd import EtcdError
from coupler.registrator.etcd.endpoints import Access
from coupler.registrator.etcd.v3 import EtcdV3

if TYPE_CHECKING:
    from pathlib import Path


class Authority:
    """Signs certificates, and writes them with their keys."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.file = folder / f"{name}.pem"
        made = self._built(self._name, self._key, ca=True)
        self.file.write_bytes(made.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._built(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key, ca=False)
        certificate, private = self.folder / f"{name}.pem", self.folder / f"{name}-key.pem"
        plain = serialization.NoEncryption()
        private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
        certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        return certificate, private

    def _built(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, *, ca: bool) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder(self._name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if not ca:
            address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
            builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def test_tls_with_certificates_that_are_renewed(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path, "ca"), Authority(tmp_path, "other")
    certificate, key = authority.issue("server")
    folder = tmp_path / "etcd"
    folder.mkdir()
    options = ["--cert-file", str(certificate), "--key-file", str(key), "--client-cert-auth"]
    server = Etcd(folder, *options, "--trusted-ca-file", str(authority.file))
    server.url = server.url.replace("http://", "https://")
    other.issue("client")
    mine = tmp_path / "client.pem", tmp_path / "client-key.pem"
    access = Access((server.url,), authority.file, *mine, request_timeout=3.0)

    async def scenario() -> None:
        now = [0.0]
        store = EtcdV3(access)
        store._http._clock = lambda: now[0]
        stranger = EtcdV3(replace(access, ca=other.file))
        nobody = EtcdV3(replace(access, certificate=None, key=None))
        try:
            with pytest.raises(EtcdError):
                await store.put("k", b"1")
            authority.issue("client")
            now[0] += 60
            for _ in range(100):
                try:
                    await store.put("k", b"1")
                    break
                except EtcdError:
                    await asyncio.sleep(0.1)
            item = await store.get("k")
            assert item is not None
            for refused in (stranger, nobody):
                with pytest.raises(EtcdError):
                    await refused.get("k")
        finally:
            for each in (store, stranger, nobody):
                await each.close()

    server.start_unchecked()
    try:
        asyncio.run(scenario())
    finally:
        server.stop()


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    bad = tmp_path / "ca.pem"
    bad.write_text("no certificate")

    async def scenario() -> None:
        store = EtcdV3(Access(("https://127.0.0.1:1",), bad))
        try:
            with pytest.raises(EtcdError, match="TLS"):
                await store.get("k")
        finally:
            await store.close()

    asyncio.run(scenario())
