"""Certificates for servers on the loopback. They and their key, valid for a hundred years, protect nothing.

A client trusts them through ``SSL_CERT_FILE`` = `AUTHORITY` or `client_context`. The names they hold are
``localhost``, ``127.0.0.1``, ``::1``, ``api.spool.test`` and ``app.spool.test``.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Literal

_FOLDER = Path(__file__).parent / "certs"

AUTHORITY = _FOLDER / "authority.pem"


def server_context(certificate: Literal["server", "elsewhere", "expired"] = "server") -> ssl.SSLContext:
    """A server's side: with a good certificate, one for another name, or one that ran out in 2024."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_FOLDER / f"{certificate}.pem")
    return context


def client_context() -> ssl.SSLContext:
    """A client's side that trusts `AUTHORITY` only."""
    return ssl.create_default_context(cafile=str(AUTHORITY))
