"""The version, in the one place that the package, the wheel and the headers of an upload read it from."""

from __future__ import annotations

__version__ = "0.1.0"
