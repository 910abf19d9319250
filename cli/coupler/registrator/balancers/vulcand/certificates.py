"""Certificates in the one form that vulcand reads, and the names for which it would serve them. Pure.

vulcand looks at the names in certificates, not at the names of hosts (Go's `tls.Config.NameToCertificate`): the exact
name first, then `*.` in place of its first label. A certificate that Go cannot read is left out with a word in the log;
if it is the default's, vulcand has no TLS at all. So what is not sure to be read is refused here. Older builds read no
Ed25519.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from coupler.registrator.balancers.vulcand.sealing import Pair
from coupler.registrator.model import ModelError

if TYPE_CHECKING:
    from coupler.registrator.model import Certificate

_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


@lru_cache(maxsize=2**12)
def pair_of(certificate: Certificate) -> Pair:
    """Return a certificate in the PEM that is sealed, always the same. Raises ModelError where Go may not read it."""
    try:
        chain = x509.load_pem_x509_certificates(certificate.chain.encode())
        key = load_pem_private_key(certificate.key.encode(), None)
        names_of(chain[0])
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension) as error:
        raise ModelError("vulcand would not read its certificate", str(error)) from None
    if not (isinstance(key, rsa.RSAPrivateKey) or (isinstance(key, ec.EllipticCurvePrivateKey) and _read(key.curve))):
        raise ModelError(
            "vulcand would not read the key of its certificate",
            "it is neither RSA nor ECDSA with the curve P-256, P-384 or P-521",
            "issue the certificate for such a key",
        )
    return Pair(
        b"".join(each.public_bytes(Encoding.PEM) for each in chain),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


@lru_cache(maxsize=2**12)
def served_names(chain: bytes) -> frozenset[str]:
    """Return the names for which vulcand serves a chain in PEM; none where it cannot be read."""
    try:
        return names_of(x509.load_pem_x509_certificate(chain))
    except (ValueError, x509.DuplicateExtension):
        return frozenset()


def names_of(certificate: x509.Certificate) -> frozenset[str]:
    """Return a certificate's DNS names, or its common name if it has none."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        listed = frozenset(names.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        listed = frozenset()
    common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return listed or frozenset(str(each.value) for each in common)


def covers(names: frozenset[str], host: str) -> bool:
    """Return whether `host`, a name or `*.` with a name, is among what a certificate is for."""
    return host in names or ("*." + host.partition(".")[2]) in names


def _read(curve: ec.EllipticCurve) -> bool:
    return isinstance(curve, _CURVES)
