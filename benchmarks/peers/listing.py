"""A bare listing of a folder in Python: scandir, a stat each, sorted by name; nothing is printed."""

from __future__ import annotations

import os
import sys

found = [(entry.name, entry.stat().st_size) for entry in os.scandir(sys.argv[1])]
found.sort()
