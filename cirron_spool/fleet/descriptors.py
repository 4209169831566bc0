"""The number of spools at a time that the limit of open files allows."""

from __future__ import annotations

from cirron_spool.pipeline.options import InFlight

# Open files of the process, of a spool (folder, lock, owner record, listing), and of a batch in flight (file,
# connection). The numbers are a little higher than measured.
_OF_PROCESS = 48
_OF_SPOOL = 6
_OF_BATCH = 2
# Assumed batches in flight of one spool with in_flight "auto": several spools share the link.
_AUTO = 8


def open_files_limit() -> int | None:
    """The limit of open files of this process; None without a limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def fitting_spools(spools: int, in_flight: InFlight, limit: int | None) -> int:
    """The number of spools at a time, from 1 to ``spools``, whose files stay within ``limit``."""
    if limit is None:
        return spools
    batches = in_flight if isinstance(in_flight, int) else _AUTO
    return max(1, min(spools, (limit - _OF_PROCESS) // (_OF_SPOOL + _OF_BATCH * batches)))
