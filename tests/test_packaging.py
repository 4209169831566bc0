"""The wheel: what is in it, and that the same sources make the same one anywhere."""

from __future__ import annotations

import argparse
import configparser
import email
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest

from cirron_spool import __version__
from cirron_spool.cli.arguments.build import build_parser

ROOT = Path(__file__).resolve().parent.parent
STEM = f"cirron_spool-{__version__}"
SHARE = f"{STEM}.data/data/share"
PIP = ("-m", "pip", "--disable-pip-version-check")
COMMANDS = sorted(build_parser("cirron-spool").commands)
PAGES = {
    name: f"{SHARE}/man/man1/{name}.1"
    for name in ("cirron", "cirron-spool", *(f"cirron-spool-{command}" for command in COMMANDS))
}
COMPLETIONS = {
    f"{SHARE}/{place}"
    for name in ("cirron", "cirron-spool")
    for place in (
        f"bash-completion/completions/{name}",
        f"zsh/site-functions/_{name}",
        f"fish/vendor_completions.d/{name}.fish",
    )
}


def run(*command: str | Path, cwd: Path, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout


def build(kind: str, source: Path, out: Path, **environment: str) -> Path:
    """Build through hatchling's own hook ("wheel", "sdist", "editable"), with what is installed here."""
    out.mkdir(parents=True)
    run(
        "-c", f"import sys, hatchling.build as b; b.build_{kind}(sys.argv[1])", out, cwd=source, **environment
    )
    (artifact,) = out.iterdir()
    return artifact


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Every long option and command of a parser and of the parsers below it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield name
                yield from options(below)
        elif action.help != argparse.SUPPRESS:
            yield from (option for option in action.option_strings if option.startswith("--"))


@pytest.fixture(scope="module")
def wheel_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that pip builds from the checkout."""
    out = tmp_path_factory.mktemp("wheel")
    run(
        *("-m", "pip", "wheel", "--quiet", "--no-index", "--no-build-isolation", "--no-deps"),
        *("--wheel-dir", out, ROOT),
        cwd=out,
    )
    assert [path.name for path in out.iterdir()] == [f"{STEM}-py3-none-any.whl"]
    return out / f"{STEM}-py3-none-any.whl"


@pytest.fixture(scope="module")
def wheel(wheel_file: Path) -> dict[str, bytes]:
    """The contents of that wheel."""
    return contents(wheel_file)


@pytest.fixture(scope="module")
def metadata(wheel: dict[str, bytes]) -> Message:
    return email.message_from_bytes(wheel[f"{STEM}.dist-info/METADATA"])


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution of the checkout."""
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist") / "out")


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, unpacked: a tree that has no repository around it."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return folder / STEM


@pytest.mark.parametrize("command", ["cirron", "cirron-spool"])
def test_a_man_page_names_every_command_and_option(wheel: dict[str, bytes], command: str) -> None:
    page = wheel[PAGES[command]].decode().replace("\\-", "-")
    assert page.startswith(f'.TH {command.upper()} "1" "" "cirron-spool {__version__}"')
    named = set(options(build_parser(command)))
    assert {"inspect", "flush", "clear", "--dir"} < named
    # --help is how one finds the page, so argparse-manpage leaves it out below the first level.
    assert [name for name in sorted(named - {"--help"}) if name not in page] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_the_man_page_of_a_command_has_its_options_and_the_usual_sections(
    wheel: dict[str, bytes], command: str
) -> None:
    page = wheel[PAGES[f"cirron-spool-{command}"]].decode().replace("\\-", "-")
    parser = build_parser("cirron-spool").commands[command]
    assert [name for name in sorted(set(options(parser)) - {"--help"}) if name not in page] == []
    assert f".SH NAME\ncirron-spool-{command} - {parser.summary}\n" in page
    for heading in ("EXAMPLES", "ENVIRONMENT", "FILES", "EXIT STATUS", "SEE ALSO"):
        assert f".SH {heading}\n" in page


def test_a_man_page_has_the_end_of_the_help(wheel: dict[str, bytes]) -> None:
    def page(name: str) -> str:
        return wheel[PAGES[name]].decode().replace("\\-", "-")

    assert "\\fB0\\fR\nA flush can run.\n.TP\n\\fB1\\fR\nA person must look.\n" in page("cirron-spool-status")
    assert "\\fB0\\fR\nNothing is left to do.\n" in page("cirron-spool-flush")
    assert "\\fB129, 130 and 143\\fR\nEnded by SIGHUP, SIGINT and SIGTERM.\n" in page("cirron-spool-inspect")
    assert ".SH NOTES\nAny other command (such as deploy) is handed over" in page("cirron")
    assert ".SH NOTES\nSettings that can be changed: apiUrl, " in page("cirron-spool-config")


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
@pytest.mark.parametrize("command", PAGES)
def test_groff_finds_no_fault_in_a_man_page(wheel: dict[str, bytes], command: str) -> None:
    lint = ["groff", "-man", "-Tutf8", "-ww", "-z"]
    done = subprocess.run(lint, input=wheel[PAGES[command]], capture_output=True, check=True)
    assert done.stderr == b""


def test_no_text_of_a_man_page_is_taken_for_a_request(wheel: dict[str, bytes]) -> None:
    for name in PAGES.values():
        lines = wheel[name].decode().splitlines()
        requests = {line.split()[0] for line in lines if line.startswith((".", "'"))}
        assert requests <= {".TH", ".SH", ".SS", ".B", ".TP", ".RS", ".RE", ".nf", ".fi"}
        # The default folder begins with a dot, and it has been swallowed at the start of a line.
        assert any("./.cirron/spool" in line for line in lines)


def test_every_source_and_nothing_else_is_in_the_wheel(wheel: dict[str, bytes]) -> None:
    sources = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "cirron_spool").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert "cirron_spool/py.typed" in sources
    assert {name for name in wheel if ".dist-info/" not in name} == sources | set(
        PAGES.values()
    ) | COMPLETIONS
    assert wheel[f"{STEM}.dist-info/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()


def test_both_commands_are_installed(wheel: dict[str, bytes]) -> None:
    entry_points = configparser.ConfigParser()
    entry_points.read_string(wheel[f"{STEM}.dist-info/entry_points.txt"].decode())
    assert dict(entry_points["console_scripts"]) == {
        "cirron": "cirron_spool.cli.main:cirron",
        "cirron-spool": "cirron_spool.cli.main:cirron_spool",
    }


def test_the_metadata_says_where_it_runs(metadata: Message) -> None:
    assert metadata["Name"] == "cirron-spool"
    assert metadata["Version"] == __version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    classifiers = metadata.get_all("Classifier", [])
    assert "Typing :: Typed" in classifiers
    pythons = [line.rpartition(" ")[2] for line in classifiers if "Python :: 3." in line]
    assert pythons == ["3.11", "3.12", "3.13", "3.14"]


def test_the_same_sources_make_the_same_wheel(unpacked: Path, tmp_path: Path) -> None:
    dated = {"SOURCE_DATE_EPOCH": "1776486598"}
    here = build("wheel", ROOT, tmp_path / "here", **dated, COLUMNS="40", TZ="Asia/Tokyo")
    there = build("wheel", unpacked, tmp_path / "there", **dated, COLUMNS="200", FORCE_COLOR="1")
    assert here.read_bytes() == there.read_bytes()
    assert b'"2026\\-04\\-18"' in contents(here)[PAGES["cirron"]]


def test_building_leaves_the_tree_as_it_was(unpacked: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    before = sorted(unpacked.rglob("*"))
    build("wheel", unpacked, tmp_path / "out", TMPDIR=str(scratch))
    assert sorted(unpacked.rglob("*")) == before
    assert list(scratch.iterdir()) == []


def test_an_editable_install_builds_no_pages_and_completions(unpacked: Path, tmp_path: Path) -> None:
    editable = contents(build("editable", unpacked, tmp_path / "out"))
    assert f"{STEM}.dist-info/entry_points.txt" in editable
    assert [name for name in editable if "/share/" in name] == []


# -- the artifacts as a registry and a user see them


def test_the_registry_would_accept_both_artifacts(wheel_file: Path, sdist: Path, tmp_path: Path) -> None:
    run("-m", "twine", "check", "--strict", wheel_file, sdist, cwd=tmp_path)
    run("-m", "check_wheel_contents", wheel_file, cwd=tmp_path)


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_pip_installs_it_into_an_empty_environment(
    wheel_file: Path, sdist: Path, kind: str, tmp_path: Path
) -> None:
    artifact = wheel_file if kind == "wheel" else sdist
    run("-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv/bin/python"
    run(*PIP, "--python", python, "install", "--quiet", "--no-compile", artifact, cwd=tmp_path)
    done = subprocess.run(
        [tmp_path / "venv/bin/cirron-spool", "flush", "--dir", tmp_path, "--json"],
        capture_output=True,
        encoding="utf-8",
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    )
    assert (done.returncode, json.loads(done.stdout)["uploaded"], done.stderr) == (0, 0, "")


def test_the_container_file_and_the_release_workflow_have_no_finding() -> None:
    scripts = Path(sys.executable).parent
    for linter in (
        ["hadolint", "Containerfile"],
        ["zizmor", "--offline", "--quiet", "--strict-collection", ".github/workflows"],
    ):
        done = subprocess.run(
            [scripts / linter[0], *linter[1:]], cwd=ROOT, capture_output=True, encoding="utf-8", check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_citation_is_valid_and_of_this_version() -> None:
    pytest.importorskip("check_jsonschema")
    citation = ROOT / "CITATION.cff"
    run("-m", "check_jsonschema", "--builtin-schema", "vendor.citation-file-format", citation, cwd=ROOT)
    assert f"\nversion: {__version__}\n" in citation.read_text(encoding="utf-8")
