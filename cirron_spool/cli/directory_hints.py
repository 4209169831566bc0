"""A warning about a directory without batches, with the spool near it."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from cirron_spool.cli.console import Console
from cirron_spool.offline import find_spool_near
from cirron_spool.settings.origin import DEFAULT
from cirron_spool.settings.paths import find_spool
from cirron_spool.text import printable


def warn_of_directory(named: str | None, directory: Path, console: Console, *, exists: bool) -> None:
    """Warn if ``directory`` does not exist, or if another directory near it has the batches.

    ``named`` is the value of ``--dir``. A default place gets no hint.
    """
    origin = find_spool(named, os.environ, file_needed=False).origin
    if origin == DEFAULT:
        return
    near = find_spool_near(directory)
    if exists and near is None:
        return
    what = f"{printable(str(directory))} {'holds no batches' if exists else 'does not exist'}."
    if near is not None:
        place = printable(str(near))
        what = f"{what} There is a spool in {place}. Pass --dir {printable(shlex.quote(str(near)))}."
    else:
        what = f"{what} Check {'--dir' if named is not None else origin}."
    console.warning(what)
