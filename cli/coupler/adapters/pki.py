"""Certificates, with `cryptography`: authorities, and certificates that they sign. Knows no files and no cluster.

Keys are ECDSA P-256. Profiles follow RFC 5280 and what etcd and Kubernetes ask for
(https://kubernetes.io/docs/setup/best-practices/certificates/).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from ipaddress import IPv4Address

AUTHORITY_LIFETIME = timedelta(days=3650)
LIFETIME = timedelta(days=365)
RENEW_BEFORE = timedelta(days=30)
"""A certificate with less time left than this is made again."""
_CLOCK_SKEW = timedelta(hours=1)
"""A certificate is valid from this long ago, for nodes whose clock is behind."""


@dataclass(frozen=True)
class KeyPair:
    """A certificate and its private key, both PEM (the key PKCS #8, not encrypted)."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True)
class Profile:
    """What a certificate says: whose it is, under which names and addresses, and what for."""

    common_name: str
    organizations: tuple[str, ...] = ()
    dns_names: tuple[str, ...] = ()
    addresses: tuple[IPv4Address, ...] = ()
    server: bool = False
    client: bool = False


def new_authority(common_name: str, now: datetime) -> KeyPair:
    """Return a new self-signed certificate authority, valid for `AUTHORITY_LIFETIME`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(Profile(common_name))
    builder = (
        _builder(name, name, key.public_key(), now, AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
    )
    return _pair(builder.sign(key, hashes.SHA256()), key)


def issue(profile: Profile, authority: KeyPair, now: datetime) -> KeyPair:
    """Return a new key and a certificate for it, signed by `authority`, valid for `LIFETIME`."""
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    issuer_key = serialization.load_pem_private_key(authority.key, password=None)
    if not isinstance(issuer_key, ec.EllipticCurvePrivateKey):
        raise TypeError("the authority's key is not an elliptic curve key")
    key = ec.generate_private_key(ec.SECP256R1())
    usages = [ExtendedKeyUsageOID.SERVER_AUTH] * profile.server + [ExtendedKeyUsageOID.CLIENT_AUTH] * profile.client
    builder = (
        _builder(_name(profile), issuer.subject, key.public_key(), now, LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    names = _alternative_names(profile)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return _pair(builder.sign(issuer_key, hashes.SHA256()), key)


def reason_to_issue(certificate: bytes | None, profile: Profile, authority: KeyPair, now: datetime) -> str | None:
    """Return why the certificate must be made anew, or None where it still serves."""
    if certificate is None:
        return "there is none"
    try:
        found = x509.load_pem_x509_certificate(certificate)
    except ValueError:
        return "it cannot be read"
    try:
        found.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate))
    except Exception:  # noqa: BLE001 - InvalidSignature, ValueError or TypeError: each means 'not from this authority'
        return "another authority signed it"
    if found.not_valid_after_utc - now < RENEW_BEFORE:
        return f"it expires on {found.not_valid_after_utc:%Y-%m-%d}"
    if found.subject != _name(profile) or _names_of(found) != _alternative_names(profile):
        return "its names have changed"
    return None


def expiry(certificate: bytes) -> datetime:
    """Return when a PEM certificate expires (UTC)."""
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc


def new_signing_key() -> bytes:
    """Return a new private key, PEM: what signs service account tokens."""
    return _key_pem(ec.generate_private_key(ec.SECP256R1()))


def public_half(key: bytes) -> bytes:
    """Return the public key of a private one, both PEM. Raises ValueError if it is none."""
    public = serialization.load_pem_private_key(key, password=None).public_key()
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(profile: Profile) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, text) for text in profile.organizations]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, profile.common_name)])


def _alternative_names(profile: Profile) -> list[x509.GeneralName]:
    return [*map(x509.DNSName, profile.dns_names), *map(x509.IPAddress, profile.addresses)]


def _names_of(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> KeyPair:
    return KeyPair(certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key))


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
