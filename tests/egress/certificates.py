"""Certificates for the evil server: a test CA, and leaves that are right or wrong in one way each."""

from __future__ import annotations

import datetime as dt
import ssl
import warnings
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = dt.timedelta(days=1)
# Names and addresses the good leaf is for; `elsewhere.example.com` is on purpose not among them.
NAMES = ("pictures.example.com", "other.example.com", "third.example.com")
ADDRESS = "127.0.0.1"


@dataclass
class Authority:
    """A CA that signs leaves into `folder`."""

    folder: Path
    name: str

    def __post_init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        certificate = (
            _builder(self._subject, self._subject, self._key.public_key(), days=30)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_ca_usage(), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.file = self.folder / f"{self.name}.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def leaf(self, name: str, *, names: tuple[str, ...] = NAMES, expired: bool = False) -> Path:
        """A certificate and its key in one file."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        alternatives = [*map(x509.DNSName, names), x509.IPAddress(ip_address(ADDRESS))]
        issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            _builder(subject, self._subject, key.public_key(), days=-1 if expired else 10)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(issuer_key, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        file = self.folder / f"{self.name}-{name}.pem"
        file.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return file


@dataclass
class Credentials:
    """Server contexts, made when first needed and kept for the session."""

    folder: Path

    def __post_init__(self) -> None:
        self.trusted = Authority(self.folder, "trusted")

    @cached_property
    def good(self) -> ssl.SSLContext:
        return _serving(self.trusted.leaf("good"))

    @cached_property
    def wrong_name(self) -> ssl.SSLContext:
        return _serving(self.trusted.leaf("wrong-name", names=("elsewhere.example.com",)))

    @cached_property
    def expired(self) -> ssl.SSLContext:
        return _serving(self.trusted.leaf("expired", expired=True))

    @cached_property
    def unknown_authority(self) -> ssl.SSLContext:
        return _serving(Authority(self.folder, "unknown").leaf("good"))

    @cached_property
    def outdated(self) -> ssl.SSLContext:
        context = _serving(self.trusted.leaf("outdated"))
        with warnings.catch_warnings():
            # Python warns about the very thing that is tried here.
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1_1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        return context


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, *, days: int
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 30 * _DAY)
        .not_valid_after(now + days * _DAY)
    )


def _ca_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def _serving(file: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context
