"""The command ``cirron-spool`` with shorter waits, with or without notices of the file system."""

from __future__ import annotations

import sys
from importlib import import_module

# The waits that become shorter. The lease keeps its time: a late renewal would lose it.
_WAITS = {
    "cirron_spool.pipeline.source": ("POLL_S",),
    "cirron_spool.pipeline.runner": ("RENEW_S",),
    "cirron_spool.spool.lease": ("RENEW_S",),
    "cirron_spool.pipeline.patience": ("LOGIN_POLL_S",),
    "cirron_spool.pipeline.notifications": ("_MISSING_S",),
    "cirron_spool.protocol.retry": (
        "FIRST_DELAY_S",
        "LONGEST_DELAY_S",
        "LONGEST_OUTAGE_DELAY_S",
        "SHORTEST_PAUSE_S",
    ),
}


def main() -> int:
    """Divide the waits by the first argument; ``polling`` as the second hides watchfiles. The rest is the command."""
    speed, notices = float(sys.argv[1]), sys.argv[2]
    if notices == "polling":
        sys.modules["watchfiles"] = None  # type: ignore[assignment]  # None makes an import of it fail
    for name, waits in _WAITS.items() if speed != 1 else ():
        module = import_module(name)
        for wait in waits:
            setattr(module, wait, getattr(module, wait) / speed)
    from cirron_spool.cli.main import cirron_spool

    sys.argv[1:3] = []
    return cirron_spool()


if __name__ == "__main__":
    sys.exit(main())
