"""Where things lie: the spool, the quarantine beside it, and the configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cirron_spool.errors import ConfigError


def spool_directory(directory: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> Path:
    """The absolute spool directory: the caller's, or ``$CIRRON_OUTPUT_DIR/spool``, or ``./.cirron/spool``."""
    if directory is not None:
        chosen = os.fspath(directory)
        if not chosen or "\0" in chosen:
            raise ConfigError(
                "The spool directory's path is empty or not a path. Pass --dir the spool directory."
            )
    else:
        chosen = os.path.join(environ.get("CIRRON_OUTPUT_DIR") or ".cirron", "spool")
    try:
        return Path(os.path.abspath(os.path.expanduser(chosen) if directory is None else chosen))
    except FileNotFoundError:
        raise ConfigError("The current directory does not exist any more. Change to one that does.") from None


def quarantine_path(spool: Path) -> Path:
    """The quarantine that belongs to a spool directory: beside where it really is, so on its file system."""
    return Path(os.path.realpath(spool)).parent / "quarantine"


def default_config_path() -> Path:
    """``~/.cirron/config.json``."""
    try:
        return Path.home() / ".cirron" / "config.json"
    except RuntimeError:
        raise ConfigError(
            "There is no home directory to look for .cirron/config.json in. Set HOME."
        ) from None
