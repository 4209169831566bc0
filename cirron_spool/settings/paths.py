"""Where things lie: the spool, and the quarantine beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from cirron_spool.errors import ConfigError
from cirron_spool.settings.files import SDK_CONFIG_NAME, UnusableFileError, home_file, read_output_dir
from cirron_spool.text import printable

# The SDK's name for the folder in its output directory.
SPOOL_NAME = "spool"
# The origin of the default place.
DEFAULT = "the default"
_QUARANTINE = "quarantine"


class Place(NamedTuple):
    """A spool directory as an absolute path, and where that came from. ``warning`` is for a person, or empty."""

    path: Path
    source: str
    warning: str = ""


def spool_directory(directory: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> Path:
    """The absolute spool directory; see :func:`find_spool`."""
    return find_spool(directory, environ).path


def find_spool(
    directory: str | os.PathLike[str] | None, environ: Mapping[str, str], *, file_needed: bool = True
) -> Place:
    """The caller's directory, or the place where the SDK writes.

    That is ``spool`` below ``$CIRRON_OUTPUT_DIR``, below ``output_dir`` in ``~/.cirron/config.toml``, or below
    ``./.cirron``. The SDK takes each literally, so nothing is expanded here either. Blocking where the file is read.
    Raises ConfigError for a path that is none, and for a file that cannot be read, unless not ``file_needed``.
    """
    if directory is not None:
        path = _absolute(os.fspath(directory), "The spool directory's path")
        return Place(path, "the directory argument")
    if output_dir := environ.get("CIRRON_OUTPUT_DIR"):
        return Place(_below(output_dir, "CIRRON_OUTPUT_DIR"), "CIRRON_OUTPUT_DIR")
    file = home_file(SDK_CONFIG_NAME)
    source = f"output_dir in {printable(str(file))}"
    found, problem = None, ""
    try:
        found = read_output_dir(file) if file is not None else None
    except UnusableFileError as error:
        if file_needed:
            raise ConfigError(f"{error.what}. Correct it, or pass --dir the spool directory.") from None
        problem = error.what
    if found is None or found == "":
        path = _below(".cirron", DEFAULT)
        warning = f"{problem}. The spool is looked for in {printable(str(path))}." if problem else ""
        return Place(path, DEFAULT, warning)
    if not isinstance(found, str):
        raise ConfigError(f"{source} is not a text. Correct it, or pass --dir the spool directory.")
    return Place(_below(found, source), source)


def quarantine_path(spool: Path) -> Path:
    """The quarantine of one spool directory: beside where it really is.

    That is the spool's file system, unless the spool is a mount point.
    ``.cirron/spool`` has ``.cirron/quarantine``; a spool ``x`` of any other name has ``x.quarantine``.
    """
    real = Path(os.path.realpath(spool))
    return real.parent / (_QUARANTINE if real.name == SPOOL_NAME else f"{real.name}.{_QUARANTINE}")


def is_quarantine_name(name: str) -> bool:
    """Whether a folder of that name is a spool's quarantine."""
    return name == _QUARANTINE or name.endswith(f".{_QUARANTINE}")


def _below(output_dir: str, source: str) -> Path:
    return _absolute(os.path.join(output_dir, SPOOL_NAME), source)


def _absolute(path: str, source: str) -> Path:
    if not _can_be_a_path(path):
        raise ConfigError(f"{source} is empty or not a path. Pass --dir the spool directory.")
    try:
        short = os.path.abspath(path)
    except FileNotFoundError:
        raise ConfigError("The current directory does not exist any more. Change to one that does.") from None
    # "link/.." is the folder that the link leads out of, not the one that the link is in.
    if os.pardir in path and os.path.realpath(path) != os.path.realpath(short):
        return Path.cwd() / path
    return Path(short)


def _can_be_a_path(text: str) -> bool:
    """Whether the system has a form for ``text``; under an old locale it has none for many letters."""
    try:
        return bool(text) and b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False
