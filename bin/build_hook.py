"""Build hook: writes the man pages and the completions of the shells while a wheel is built.

hatchling finds the hook through `[tool.hatch.build.targets.wheel.hooks.custom]` in pyproject.toml. The files are
written to a temporary folder and go to share/ of the place where the wheel is installed. So `man cirron-spool-flush`
works next to the command, and the checkout stays as it is. The parser is the only source of options and examples.
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
    from collections.abc import Iterator

COMMANDS = ("cirron-spool", "cirron")

# The requests of roff that argparse-manpage writes.
REQUESTS = ("TH", "SH", "SS", "TP", "RS", "RE", "B", "UR", "UE")


# The part of an epilog that lists the exit codes begins so.
EXIT_CODES = "exit codes: "

# The place of the completion of a program, below share/.
COMPLETIONS = {
    "bash": "bash-completion/completions/{}",
    "zsh": "zsh/site-functions/_{}",
    "fish": "fish/vendor_completions.d/{}.fish",
}


class BuildHook(BuildHookInterface[Any]):
    """Adds the man pages and the completions to a wheel."""

    PLUGIN_NAME = "custom"

    _folder: str | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the files and name them in `build_data`; an editable install gets none, it has no wheel to keep."""
        if version == "editable":
            return
        folder = Path(tempfile.mkdtemp(prefix="cirron-spool-share-"))
        self._folder = str(folder)
        pages = man_pages(Path(self.root), self.metadata.version, self.metadata.core.description)
        for place, text in [*pages, *completions(Path(self.root))]:
            file = folder / place
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8", newline="\n")
            build_data["shared_data"][str(file)] = f"share/{place}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 - hatchling's signature
        """Remove the temporary folder once the wheel holds the files."""
        if self._folder is not None:
            shutil.rmtree(self._folder)


def man_pages(root: Path, version: str, description: str) -> list[tuple[str, str]]:
    """Return (place below share/, page in roff) for each program and each command of `cirron-spool`.

    The same sources give the same bytes anywhere: colours are off, the width is fixed (72 columns, so that a
    usage with its indent fits into 80), and the page is dated only where SOURCE_DATE_EPOCH (seconds since
    the epoch, reproducible-builds.org) says of when.
    """
    pages = []
    with _sources_first(root), mock.patch.dict(os.environ, {"COLUMNS": "72", "NO_COLOR": "1"}):
        build = importlib.import_module("cirron_spool.cli.arguments.build")
        manual = importlib.import_module("cirron_spool.cli.arguments.manual")
        whole = build.build_parser("cirron-spool")
        names = ["cirron-spool", "cirron", *(f"cirron-spool-{name}" for name in whole.commands)]
        helps = {f"cirron-spool-{name}": command.summary for name, command in whole.commands.items()}
        parsers = {
            "cirron-spool": whole,
            "cirron": build.build_parser("cirron"),
            **{f"cirron-spool-{name}": command for name, command in whole.commands.items()},
        }
        short = description[:1].lower() + description[1:]
        for name in names:
            others = [other for other in names if other != name]
            text = _man_page(name, parsers[name], helps.get(name, short), version, manual, others)
            pages.append((f"man/man1/{name}.1", text))
    return pages


def completions(root: Path) -> list[tuple[str, str]]:
    """Return (place below share/, script) for each program and shell."""
    with _sources_first(root):
        script = importlib.import_module("cirron_spool.cli.completion").script
        return [
            (place.format(program), f"{script(program, shell)}\n")
            for shell, place in COMPLETIONS.items()
            for program in COMMANDS
        ]


def _man_page(name: str, parser: Any, description: str, version: str, manual: Any, others: list[str]) -> str:
    from argparse_manpage.manpage import Manpage  # an editable build does without

    examples = list(_examples(parser))
    notes, _, codes = (parser.epilog or "").partition(EXIT_CODES)
    parser.epilog = None  # it has sections of its own
    page = Manpage(
        parser,
        format="single-commands-section",
        _data={
            "project_name": "cirron-spool",
            "version": version,
            "manual_title": "User Commands",
            "description": description,
        },
    )
    page.prog = name
    page.date = _date()
    if examples:
        page.add_section("examples", ">", _entries(dict(examples)))
    page.add_section("environment", ">", _entries(manual.ENVIRONMENT))
    page.add_section("files", ">", _entries(manual.FILES))
    if notes:
        page.add_section("notes", ">", _roff(f"{notes[:1].upper()}{notes[1:].rstrip()}"))
    page.add_section("exit status", ">", _entries(_exit_status(codes or manual.EXIT_CODES)))
    page.add_section("see also", ">", ", ".join(f"{_roff(other)}(1)" for other in others))
    return _tidy(str(page))


def _examples(parser: Any) -> Iterator[tuple[str, str]]:
    """The examples of a command and of those below it: (command line, purpose)."""
    for command, purpose in parser.examples:
        yield command, f"{purpose[:1].upper()}{purpose[1:]}."
    for below in parser.commands.values():
        yield from _examples(below)


def _exit_status(codes: str) -> dict[str, str]:
    """The meaning of each exit code in a line such as `0 a flush can run; 1 a person must look.`."""
    parts = (
        re.match(r"([0-9]+(?:(?:, | and )[0-9]+)*) (.+)", part) for part in codes.rstrip(".").split("; ")
    )
    return {part[1]: f"{part[2][:1].upper()}{part[2][1:]}." for part in parts if part}


def _entries(texts: dict[str, str]) -> str:
    """Terms and their explanations, as roff."""
    return "\n".join(f".TP\n\\fB{_roff(term)}\\fR\n{_roff(text)}" for term, text in texts.items())


def _roff(text: str) -> str:
    """`text` as roff shows it unchanged."""
    return text.replace("\\", "\\e").replace("-", "\\-").replace("~", "\\(ti").replace("^", "\\(ha")


def _tidy(page: str) -> str:
    """Mend what argparse-manpage 4.8 leaves to be mended.

    A line of text that begins with a dot or a quote would be taken for a request and vanish
    ("./.cirron/spool"); a usage would be filled like a paragraph.
    """
    page = re.sub(rf"^(?=[.'])(?!\.(?:{'|'.join(REQUESTS)})\b)", r"\\&", page, flags=re.MULTILINE)
    return re.sub(r"^usage: .*(?:\n +.*)*", r".nf\n\g<0>\n.fi", page, flags=re.MULTILINE)


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
