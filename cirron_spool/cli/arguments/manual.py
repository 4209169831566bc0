"""The sections of the man pages beside the options: environment, files, exit status."""

from __future__ import annotations

from cirron_spool.cli.arguments import options

# Of a command whose help says nothing else.
EXIT_CODES = options.EXIT_CODES.partition(": ")[2]

ENVIRONMENT = {
    "CIRRON_API_KEY": "The token. It comes before a login in the configuration.",
    "CIRRON_API_ENDPOINT": "The platform's API. It comes before apiUrl in the configuration.",
    "CIRRON_OUTPUT_DIR": "The output directory of the SDK. The spool is the folder spool in it.",
    "CIRRON_INGEST_PATH": "The ingest route, /api/traces by default.",
    "CIRRON_SPOOL_MAX_BYTES": "The SDK's limit of the spool, in bytes, which status shows.",
    "CIRRON_RECEIVE_TOKEN": "The token that receive accepts.",
    "HTTPS_PROXY, HTTP_PROXY, ALL_PROXY": "The proxy, in upper or lower case.",
    "NO_PROXY": "Hosts, addresses and ranges that are reached without a proxy.",
    "SSL_CERT_FILE": "Certificates that are trusted beside the system's own.",
    "NO_COLOR": "No colour.",
}

FILES = {
    "./.cirron/spool": "The spool that the SDK writes in the folder of a run.",
    "./.cirron/quarantine": "The batches that flush --quarantine set aside, each with a note of the reason.",
    "~/.cirron/config.json": "Configuration and login, shared with the official tool.",
    "~/.cirron/config.toml": "The SDK's own configuration, whose table [default] is read.",
}
