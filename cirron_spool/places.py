"""Where things lie: the spool, the quarantine beside it, and the configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cirron_spool.errors import ConfigError

# What the SDK calls the folder in its output directory.
SPOOL_NAME = "spool"
_QUARANTINE = "quarantine"


def spool_directory(directory: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> Path:
    """The absolute spool directory: the caller's, or ``$CIRRON_OUTPUT_DIR/spool``, or ``./.cirron/spool``."""
    if directory is not None:
        chosen = os.fspath(directory)
        if not chosen or "\0" in chosen:
            raise ConfigError(
                "The spool directory's path is empty or not a path. Pass --dir the spool directory."
            )
    else:
        chosen = os.path.join(environ.get("CIRRON_OUTPUT_DIR") or ".cirron", SPOOL_NAME)
    try:
        return Path(os.path.abspath(os.path.expanduser(chosen) if directory is None else chosen))
    except FileNotFoundError:
        raise ConfigError("The current directory does not exist any more. Change to one that does.") from None


def quarantine_path(spool: Path) -> Path:
    """The quarantine of one spool directory: beside where it really is, so on its file system.

    ``.cirron/spool`` has ``.cirron/quarantine``; a spool ``x`` of any other name has ``x.quarantine``.
    """
    real = Path(os.path.realpath(spool))
    return real.parent / (_QUARANTINE if real.name == SPOOL_NAME else f"{real.name}.{_QUARANTINE}")


def is_quarantine_name(name: str) -> bool:
    """Whether a folder of that name is a spool's quarantine."""
    return name == _QUARANTINE or name.endswith(f".{_QUARANTINE}")


def default_config_path() -> Path:
    """``~/.cirron/config.json``."""
    try:
        return Path.home() / ".cirron" / "config.json"
    except RuntimeError:
        raise ConfigError(
            "There is no home directory to look for .cirron/config.json in. Set HOME."
        ) from None
