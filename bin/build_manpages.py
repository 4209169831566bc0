"""Build hook: writes the man pages from the command-line parser while a wheel is built.

hatchling finds the hook through `[tool.hatch.build.targets.wheel.hooks.custom]` in pyproject.toml. The
pages are written to a temporary folder and go to share/man/man1 of wherever the wheel is installed, so
`man cirron-spool` works next to the command and the checkout stays as it is. The parser is the only
source: a flag that is not in a page does not exist.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

COMMANDS = ("cirron-spool", "cirron")

# The requests of roff that argparse-manpage writes.
REQUESTS = ("TH", "SH", "SS", "TP", "RS", "RE", "B", "UR", "UE")


class ManPages(BuildHookInterface[Any]):
    """Adds share/man/man1/<command>.1 to a wheel, for each of COMMANDS."""

    PLUGIN_NAME = "custom"

    _folder: str | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the pages and name them in `build_data`; an editable install gets none, it has no wheel to keep."""
        if version == "editable":
            return
        pages = man_pages(Path(self.root), self.metadata.version, self.metadata.core.description)
        self._folder = tempfile.mkdtemp(prefix="cirron-spool-man-")
        for name, text in pages:
            page = Path(self._folder, f"{name}.1")
            page.write_text(text, encoding="utf-8", newline="\n")
            build_data["shared_data"][str(page)] = f"share/man/man1/{page.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 - hatchling's signature
        """Remove the temporary folder once the wheel holds the pages."""
        if self._folder is not None:
            shutil.rmtree(self._folder)


def man_pages(root: Path, version: str, description: str) -> list[tuple[str, str]]:
    """Return (command, page in roff) for each command, from the parser of the sources below `root`.

    The same sources give the same bytes anywhere: colours are off, the width is fixed (72 columns, so that a
    usage with its indent fits into 80), and the page is dated only where SOURCE_DATE_EPOCH (seconds since
    the epoch, reproducible-builds.org) says of when.
    """
    from argparse_manpage.manpage import Manpage  # an editable build does without

    pages = []
    with _sources_first(root), mock.patch.dict(os.environ, {"COLUMNS": "72", "NO_COLOR": "1"}):
        build_parser = importlib.import_module("cirron_spool.cli.arguments.build").build_parser
        for name in COMMANDS:
            parser: argparse.ArgumentParser = build_parser(name)
            page = Manpage(
                parser,
                format="single-commands-section",
                _data={
                    "project_name": "cirron-spool",
                    "version": version,
                    "manual_title": "User Commands",
                    "description": description[:1].lower() + description[1:],
                },
            )
            page.date = _date()
            pages.append((name, _tidy(str(page))))
    return pages


def _tidy(page: str) -> str:
    """Mend what argparse-manpage 4.8 leaves to be mended.

    A line of text that begins with a dot or a quote would be taken for a request and vanish
    ("./.cirron/spool"); a usage would be filled like a paragraph; commands are called positional arguments.
    """
    page = re.sub(rf"^(?=[.'])(?!\.(?:{'|'.join(REQUESTS)})\b)", r"\\&", page, flags=re.MULTILINE)
    page = re.sub(r"^usage: .*(?:\n +.*)*", r".nf\n\g<0>\n.fi", page, flags=re.MULTILINE)
    return page.replace(".SH\nPOSITIONAL ARGUMENTS\n", ".SH COMMANDS\n")


def _date() -> str:
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if not epoch:
        return ""
    return datetime.datetime.fromtimestamp(int(epoch), tz=datetime.UTC).strftime("%Y-%m-%d")


@contextlib.contextmanager
def _sources_first(root: Path) -> Iterator[None]:
    """Import cirron_spool from `root` and leave no trace of it: the builder may be a long-lived process.

    No bytecode is written either, so that building does not litter the tree that is being packed.
    """
    ours = ("cirron_spool", "cirron_spool.")

    def forget() -> dict[str, Any]:
        names = [name for name in sys.modules if name == ours[0] or name.startswith(ours[1])]
        return {name: sys.modules.pop(name) for name in names}

    before, no_bytecode = forget(), sys.dont_write_bytecode
    sys.path.insert(0, str(root))
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = no_bytecode
        sys.path.remove(str(root))
        forget()
        sys.modules.update(before)
