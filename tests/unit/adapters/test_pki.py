"""Certificates: what they say, and when they are made anew."""

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

from cryptography import x509

from coupler.adapters import pki

NOW = datetime(2026, 8, 1, tzinfo=UTC)
PROFILE = pki.Profile("node-1", ("system:nodes",), ("node-1",), (IPv4Address("10.0.0.11"),), server=True, client=True)


def test_certificate_says_what_its_profile_says():
    pair = pki.issue(PROFILE, pki.new_authority("demo", NOW), NOW)
    certificate = x509.load_pem_x509_certificate(pair.certificate)
    assert certificate.subject.rfc4514_string() == "CN=node-1,O=system:nodes"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["node-1"]
    assert names.get_values_for_type(x509.IPAddress) == [IPv4Address("10.0.0.11")]
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert {usage._name for usage in usages} == {"serverAuth", "clientAuth"}


def test_certificate_that_serves_is_kept():
    authority = pki.new_authority("demo", NOW)
    pair = pki.issue(PROFILE, authority, NOW)
    assert pki.reason_to_issue(pair.certificate, PROFILE, authority, NOW + timedelta(days=300)) is None


def test_reasons_to_issue():
    authority = pki.new_authority("demo", NOW)
    certificate = pki.issue(PROFILE, authority, NOW).certificate
    moved = pki.Profile("node-1", ("system:nodes",), ("node-1",), (IPv4Address("10.0.0.12"),), server=True, client=True)
    cases = [
        (None, PROFILE, authority, NOW, "there is none"),
        (b"rubbish", PROFILE, authority, NOW, "it cannot be read"),
        (certificate, PROFILE, pki.new_authority("demo", NOW), NOW, "another authority signed it"),
        (certificate, moved, authority, NOW, "its names have changed"),
        (certificate, PROFILE, authority, NOW + timedelta(days=340), "it expires on 2027-08-01"),
    ]
    for found, profile, signer, now, reason in cases:
        assert pki.reason_to_issue(found, profile, signer, now) == reason


def test_certificate_is_valid_for_a_node_whose_clock_is_behind():
    authority = x509.load_pem_x509_certificate(pki.new_authority("demo", NOW).certificate)
    assert authority.not_valid_before_utc <= NOW - timedelta(minutes=30)
