"""``read_traces``: the sessions of a spool and their trees, for programs and notebooks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cirron_spool.html.fragments import traces_html
from cirron_spool.settings.paths import spool_directory
from cirron_spool.text import bounded_repr
from cirron_spool.traces.trace import read_trace
from cirron_spool.traces.tree import Folding
from cirron_spool.traces.view import view


@dataclass(frozen=True, slots=True)
class Traces:
    """The sessions in ``directory``, oldest first, in the form of ``traces view --json``. See docs/contract.md.

    ``warnings`` has a line for each skipped batch.
    """

    directory: Path
    sessions: Sequence[dict[str, Any]]
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return bounded_repr(self)

    def _repr_html_(self) -> str:
        """The sessions and their trees in a notebook's cell."""
        return traces_html(str(self.directory), self.sessions, self.warnings)


def read_traces(
    directory: str | os.PathLike[str] | None = None, *, session: str | None = None, last: int | None = None
) -> Traces:
    """Read the batches in ``directory``: a spool, a receiver's store, a folder with spools, or a tar or zip file.

    ``session`` is the beginning of an identifier, ``last`` takes the newest sessions; without both, the newest run is
    read, with all its ranks. Siblings of one name are folded. Nothing is changed. Blocking; works offline. Raises
    SpoolError for a place that cannot be read, ConfigError for a session that is not there.
    """
    path = spool_directory(directory, os.environ)
    warnings: list[str] = []
    with read_trace(path, warnings.append, ()) as trace:
        newest = session is None and last is None
        chosen = trace.newest_run() if newest else trace.choose(session, last)
        forms = [each.form() for each in view(trace, chosen, Folding())]
    return Traces(path, forms, tuple(warnings))
