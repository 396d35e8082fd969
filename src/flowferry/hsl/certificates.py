"""Certificates of instances: their names, what is wrong with them, and TLS for the adapters."""

import ssl
from pathlib import Path
from typing import Any

from flowferry import _native
from flowferry.hsl.agent import Tls


def name_of(instance: int) -> str:
    """The subject alternative name in the certificate of an instance, by its number.

    >>> name_of(7)
    'instance-7'
    """
    return _native.hsl_certificate_name(instance)


def problem(tls: Tls, instance: int | None = None) -> tuple[str, str] | None:
    """Which field of `tls` others would refuse now, and why: missing, expired, of another name …

    Without `instance`, only what cannot be read or does not fit.
    """
    shared = sharing(Path(tls.key))
    if shared is not None:
        return "key", shared
    return _native.hsl_certificate_problem(tls.cert, tls.key, tls.ca, instance)


def sharing(secret: Path) -> str | None:
    """A secret belongs to its owner alone; whether it is there at all, others find out."""
    try:
        mode = secret.stat().st_mode & 0o777
    except OSError:
        return None
    return f"others may use it (mode {mode:o}); chmod 600" if mode & 0o077 else None


def context(tls: Tls, *, dialling: bool) -> ssl.SSLContext:
    """TLS 1.3 with mutual authentication, for one end. Raises `ValueError` with what is wrong."""
    found = problem(tls)
    if found is not None:
        field, why = found
        raise ValueError(f"{getattr(tls, field)} cannot be used: {why}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if dialling else ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(tls.cert, tls.key)
    context.load_verify_locations(tls.ca)
    return context


def shown(connection: ssl.SSLObject) -> frozenset[str]:
    """The names that the other end's certificate stands for."""
    names: Any = (connection.getpeercert() or {}).get("subjectAltName", ())
    return frozenset(name for kind, name in names if kind == "DNS")
