"""The sections of the man pages beside the options: environment, files, exit status."""

from __future__ import annotations

from cirron_spool.cli.arguments import options

# For commands without exit codes of their own.
EXIT_CODES = options.EXIT_CODES.partition(": ")[2]

ENVIRONMENT = {
    "CIRRON_API_KEY": "The token. It overrides a login in the configuration.",
    "CIRRON_API_ENDPOINT": "The platform's API. It overrides apiUrl in the configuration.",
    "CIRRON_OUTPUT_DIR": "The output directory of the SDK. The spool is the folder spool in it.",
    "CIRRON_INGEST_PATH": "The ingest route, /api/traces by default.",
    "CIRRON_SPOOL_MAX_BYTES": "The SDK's limit of the spool, in bytes, which status shows.",
    "CIRRON_RECEIVE_TOKEN": "The token that receive accepts.",
    "HTTPS_PROXY, HTTP_PROXY, ALL_PROXY": "The proxy, in upper or lower case.",
    "NO_PROXY": "Hosts, addresses and ranges that are reached without a proxy.",
    "SSL_CERT_FILE": "Certificates to trust in addition to the system's.",
    "NO_COLOR": "No colour.",
}

FILES = {
    "./.cirron/spool": "The spool that the SDK writes in the folder of a run.",
    "./.cirron/quarantine": "The batches that flush --quarantine set aside, each with a note of the reason.",
    "~/.cirron/config.json": "Configuration and login, shared with the official tool.",
    "~/.cirron/config.toml": "The SDK's own configuration. Only its table [default] is read.",
}
