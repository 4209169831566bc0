"""``python -m cirron_spool`` is ``cirron-spool``."""

from __future__ import annotations

import sys

from cirron_spool.cli.main import cirron_spool

if __name__ == "__main__":
    sys.exit(cirron_spool())
