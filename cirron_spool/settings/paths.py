"""The paths of a spool and of its quarantine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from cirron_spool.errors import ConfigError
from cirron_spool.settings.files import SDK_CONFIG_NAME, UnusableFileError, home_file, read_sdk_value
from cirron_spool.settings.origin import DEFAULT, Origin
from cirron_spool.text import printable

# The SDK's name for the folder in its output directory.
SPOOL_NAME = "spool"
_QUARANTINE = "quarantine"
# cirron-sdk 0.3.0, DEFAULT_SPOOL_MAX_BYTES.
SDK_CAP = 1_000_000_000


class Place(NamedTuple):
    """The absolute path of a spool directory, and its origin. ``warning`` is for a person, or empty."""

    path: Path
    origin: Origin
    warning: str = ""


def spool_directory(directory: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> Path:
    """The absolute spool directory; see :func:`find_spool`."""
    return find_spool(directory, environ).path


def find_spool(
    directory: str | os.PathLike[str] | None, environ: Mapping[str, str], *, file_needed: bool = True
) -> Place:
    """Find the spool directory: ``directory``, or else the directory of the SDK. Blocking.

    The SDK writes to ``spool`` below ``$CIRRON_OUTPUT_DIR``, below ``output_dir`` in ``~/.cirron/config.toml``, or
    below ``./.cirron``. As in the SDK, no ``~`` is expanded. Raises ConfigError for an invalid path, and for an
    unreadable file if ``file_needed``.
    """
    if directory is not None:
        path = _absolute(path_text(directory, "directory"), "The spool directory's path")
        return Place(path, Origin("argument", "directory"))
    if output_dir := environ.get("CIRRON_OUTPUT_DIR"):
        origin = Origin("environment", "CIRRON_OUTPUT_DIR")
        return Place(_below(output_dir, origin), origin)
    file = home_file(SDK_CONFIG_NAME)
    origin = Origin("file", "output_dir", file)
    found, problem = None, ""
    try:
        found = read_sdk_value(file, "output_dir") if file is not None else None
    except UnusableFileError as error:
        if file_needed:
            raise ConfigError(f"{error.what}. Correct it, or pass --dir the spool directory.") from None
        problem = error.what
    if found is None or found == "":
        path = _below(".cirron", DEFAULT)
        warning = f"{problem}. The spool is expected in {printable(str(path))}." if problem else ""
        return Place(path, DEFAULT, warning)
    if not isinstance(found, str):
        raise ConfigError(f"{origin} is not a text. Correct it, or pass --dir the spool directory.")
    return Place(_below(found, origin), origin)


def spool_cap(environ: Mapping[str, str]) -> int:
    """The SDK's limit for a spool in bytes. Beyond it, the SDK deletes the oldest batches. Blocking.

    ``CIRRON_SPOOL_MAX_BYTES``, else ``spool_max_bytes`` in ``~/.cirron/config.toml``, else 1 GB. A value that the SDK
    cannot use is ignored.
    """
    file = home_file(SDK_CONFIG_NAME)
    found: object = environ.get("CIRRON_SPOOL_MAX_BYTES")
    if not found and file is not None:
        with suppress(UnusableFileError):
            found = read_sdk_value(file, "spool_max_bytes")
    try:
        cap = int(found) if isinstance(found, str | int) else 0
    except ValueError:
        cap = 0
    return cap if cap > 0 else SDK_CAP


def quarantine_path(spool: Path) -> Path:
    """The quarantine of a spool, beside its real path. Both are on one file system unless the spool is a mount point.

    ``.cirron/spool`` has ``.cirron/quarantine``. A spool ``x`` of another name has ``x.quarantine``.
    """
    real = Path(os.path.realpath(spool))
    return real.parent / (_QUARANTINE if real.name == SPOOL_NAME else f"{real.name}.{_QUARANTINE}")


def path_text(path: object, argument: str) -> str:
    """Convert a path in ``argument`` to text. Raises ConfigError for another type."""
    if not isinstance(path, str | bytes | os.PathLike):
        raise ConfigError(f"{argument} must be a path, not {type(path).__name__}. Pass a str or a Path.")
    return os.fsdecode(path)


def is_quarantine_name(name: str) -> bool:
    """Whether a folder with this name is the quarantine of a spool."""
    return name == _QUARANTINE or name.endswith(f".{_QUARANTINE}")


def _below(output_dir: str, origin: Origin) -> Path:
    return _absolute(os.path.join(output_dir, SPOOL_NAME), str(origin))


def _absolute(path: str, subject: str) -> Path:
    if not _can_be_a_path(path):
        raise ConfigError(f"{subject} is empty or not a path. Pass --dir the spool directory.")
    try:
        short = os.path.abspath(path)
    except FileNotFoundError:
        raise ConfigError("The current directory does not exist any more. Change to one that does.") from None
    # "link/.." is the parent of the link's target, not the parent of the link.
    if os.pardir in path and os.path.realpath(path) != os.path.realpath(short):
        return Path.cwd() / path
    return Path(short)


def _can_be_a_path(text: str) -> bool:
    """Whether the system can encode ``text`` as a path. Old locales encode few characters."""
    try:
        return bool(text) and b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False
