"""Print the lowest versions that pyproject.toml admits, as requirements: for tests against them.

python bin/lowest.py > lowest.txt
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def lowest(requirement: str) -> str:
    """``aiohttp==3.13.4`` for ``aiohttp>=3.13.4``; a marker stays. Raises ValueError without a lower bound."""
    found = re.fullmatch(r"([\w.-]+(?:\[[\w,]+\])?)>=([\w.]+)( *;.*)?", requirement.strip())
    if found is None:
        raise ValueError(f"{requirement} has no lower bound of the form NAME>=VERSION")
    name, version, marker = found.groups()
    return f"{name}=={version}{marker or ''}"


def main() -> None:
    """Print one requirement a line: the dependencies, and those of the extra for SOCKS proxies."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    for requirement in (*project["dependencies"], *project["optional-dependencies"]["socks"]):
        print(lowest(requirement))


if __name__ == "__main__":
    main()
