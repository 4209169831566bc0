"""Where the spool and the quarantine are: where the SDK writes, which is asked itself."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest
from cirron import Cirron

from cirron_spool.errors import ConfigError
from cirron_spool.settings.files import home_file
from cirron_spool.settings.origin import DEFAULT, Origin
from cirron_spool.settings.paths import (
    Place,
    find_spool,
    is_quarantine_name,
    quarantine_path,
    spool_directory,
)
from support.fork_server import run_cli
from support.spools import profiled_run, snapshot, write_batch

BROKEN = {
    "cut": b"[default\n",
    "JSON": b'{"default": {"output_dir": "runs"}}',
    "binary": b"\xff\xfe[default]",
    "a byte order mark": b"\xef\xbb\xbf[default]\n",
    "no table": b"default = 7\n",
    "too deep": b"a = " + b"[" * 100_000,
    "too large": b"#" * 1024 * 1024 + b"\n",
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with ``.cirron``, and a current directory beside it."""
    (tmp_path / "home" / ".cirron").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def put_toml(home: Path, text: str | bytes) -> Path:
    path = home / ".cirron" / "config.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def written_by_the_sdk() -> Path:
    """The spool that the SDK would make and write into, in this environment, with one batch."""
    spool = Path(Cirron().output_dir) / "spool"
    write_batch(spool, 1, "aa")
    return spool


# -- where the SDK writes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "toml"),
    [
        (None, None),
        ("out", None),
        ("", None),
        ("", 'output_dir = "t"'),
        ("~/runs", None),
        ("~", None),
        ("$HOME/runs", None),
        (" out ", None),
        (" ", None),
        ("out/", None),
        ("out//deep/./x", None),
        ("../beside", None),
        ("deep/../other", None),
        ("link/../other", None),
        ("link", None),
        ("f\u00fcr \u65e5", None),
        ("line\nfeed", None),
        ("out", 'output_dir = "t"'),
        (None, 'output_dir = "t"'),
        (None, 'output_dir = "~/t"'),
        (None, 'output_dir = "../t"'),
        (None, 'output_dir = "link/../t"'),
        (None, 'output_dir = ""'),
        (None, "api_key = 'x'"),
        (None, ""),
    ],
)
def test_the_spool_is_where_the_sdk_writes(
    home: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None, toml: str | None
) -> None:
    (home / "elsewhere" / "deep").mkdir(parents=True)
    Path("link").symlink_to(home / "elsewhere" / "deep")
    Path("deep").mkdir()
    if variable is not None:
        monkeypatch.setenv("CIRRON_OUTPUT_DIR", variable)
    if toml is not None:
        put_toml(home, f"[default]\n{toml}\n")
    found = spool_directory(None, os.environ)
    assert found.is_absolute()
    assert found.samefile(written_by_the_sdk())
    assert len(snapshot(found)) == 1


@pytest.mark.parametrize(
    "toml",
    ["output_dir = 't'", '[profile]\noutput_dir = "t"', '[other]\n[other.default]\noutput_dir = "t"'],
)
def test_another_table_is_not_read(home: Path, toml: str) -> None:
    put_toml(home, toml)
    assert spool_directory(None, {}).samefile(written_by_the_sdk())


def test_an_absolute_output_dir_in_the_file(home: Path, tmp_path: Path) -> None:
    file = put_toml(home, f"[default]\noutput_dir = '{tmp_path}/runs'\n")
    assert find_spool(None, {}) == Place(tmp_path / "runs" / "spool", Origin("file", "output_dir", file))


def test_each_place_is_named(home: Path, tmp_path: Path) -> None:
    assert find_spool(None, {}) == Place(tmp_path / "here/.cirron/spool", DEFAULT)
    moved = {"CIRRON_OUTPUT_DIR": "x"}
    assert find_spool(None, moved) == Place(
        tmp_path / "here/x/spool", Origin("environment", "CIRRON_OUTPUT_DIR")
    )
    assert find_spool("y", moved) == Place(tmp_path / "here/y", Origin("argument", "directory"))


def test_a_directory_that_is_given(home: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    moved = {"CIRRON_OUTPUT_DIR": str(tmp_path / "out")}
    assert spool_directory("there/../here", moved) == here / "here"
    assert spool_directory("../there", moved) == tmp_path / "there"
    assert spool_directory(Path("/x"), moved) == Path("/x")
    # The shell has expanded what it meant to; a folder may be called ~.
    assert spool_directory("~", moved) == here / "~"
    (home / "deep").mkdir()
    Path("link").symlink_to(home / "deep")
    assert spool_directory("link/../x", moved).parent.samefile(home)


@pytest.mark.parametrize("bad", ["", "a\0b", "half a pair: \ud800"], ids=ascii)
def test_a_directory_that_is_none_is_refused(bad: str) -> None:
    with pytest.raises(ConfigError, match="--dir"):
        spool_directory(bad, {})


@pytest.mark.parametrize("bad", ["7", "true", "['runs']", '"a\\u0000b"'])
def test_an_output_dir_that_is_none_is_refused(home: Path, bad: str) -> None:
    file = put_toml(home, f"[default]\noutput_dir = {bad}\n")
    with pytest.raises(ConfigError) as caught:
        spool_directory(None, {})
    assert str(caught.value).startswith(f"output_dir in {file} is ")
    assert "--dir" in str(caught.value)


def test_a_current_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigError, match="current directory"):
        spool_directory(None, {})
    assert spool_directory("/x", {}) == Path("/x")
    assert spool_directory(None, {"CIRRON_OUTPUT_DIR": "/x"}) == Path("/x/spool")


# -- a file or a home that cannot be used ------------------------------------------------------------------------


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_named_where_it_is_needed(home: Path, content: bytes) -> None:
    file = put_toml(home, content)
    with pytest.raises(ConfigError) as caught:
        find_spool(None, {})
    message = str(caught.value)
    assert str(file) in message
    assert message.endswith(". Correct it, or pass --dir the spool directory.")
    assert message.isprintable()
    assert find_spool("x", {}).warning == ""
    assert find_spool(None, {"CIRRON_OUTPUT_DIR": "x"}).warning == ""
    place = find_spool(None, {}, file_needed=False)
    # The SDK writes there, too, unless it ends on the file: it cannot bear bytes that are no text.
    assert place.path == Path.cwd() / ".cirron" / "spool"
    assert str(file) in place.warning
    assert str(place.path) in place.warning


def make_folder(path: Path) -> None:
    path.mkdir()


def make_loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize("make", [make_folder, os.mkfifo, make_loop])
def test_what_is_no_file_is_named(home: Path, make: object) -> None:
    assert callable(make)
    file = home / ".cirron" / "config.toml"
    make(file)
    with pytest.raises(ConfigError, match=f"{file}.*--dir"):
        find_spool(None, {})
    assert find_spool(None, {}, file_needed=False).origin == DEFAULT


@pytest.mark.parametrize("place", ["/dev/null", "/nonexistent/a", "relative", "", "~", "~nobody-here"])
def test_a_home_without_a_configuration(home: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setenv("HOME", place)
    assert find_spool(None, {}) == Place(Path.cwd() / ".cirron" / "spool", DEFAULT)


def test_a_relative_home_is_below_the_current_directory(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_toml(home, "[default]\noutput_dir = 't'\n")
    monkeypatch.setenv("HOME", "../home")
    assert home_file("config.toml") == home / ".cirron" / "config.toml"
    assert spool_directory(None, {}).samefile(written_by_the_sdk())


def test_no_home_at_all(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> object:
        raise KeyError(uid)

    # A user who is in no list, as containers have them.
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert home_file("config.json") is None
    assert find_spool(None, {}) == Place(Path.cwd() / ".cirron" / "spool", DEFAULT)


# -- the quarantine -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spool", "quarantine"),
    [
        (".cirron/spool", ".cirron/quarantine"),
        (".cirron/spool/", ".cirron/quarantine"),
        ("recv1", "recv1.quarantine"),
        ("deep/../recv1/.", "recv1.quarantine"),
        ("spool.old", "spool.old.quarantine"),
        ("quarantine", "quarantine.quarantine"),
        ("/", "/.quarantine"),
    ],
)
def test_each_spool_has_a_quarantine_of_its_own(tmp_path: Path, spool: str, quarantine: str) -> None:
    assert quarantine_path(tmp_path / spool) == tmp_path / quarantine
    assert is_quarantine_name((tmp_path / quarantine).name)
    assert not is_quarantine_name(quarantine_path(tmp_path / spool).name + "d")


def test_a_link_has_the_quarantine_of_the_spool_that_it_leads_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run" / "spool").mkdir(parents=True)
    (tmp_path / "latest").symlink_to(tmp_path / "run" / "spool")
    assert quarantine_path(tmp_path / "latest") == tmp_path / "run" / "quarantine"
    monkeypatch.chdir(tmp_path / "run" / "spool")
    assert quarantine_path(spool_directory(".", {})) == tmp_path / "run" / "quarantine"


# -- the commands ------------------------------------------------------------------------------------------------


def test_a_profiled_run_and_a_tilde_that_no_shell_expands(home: Path, tmp_path: Path) -> None:
    sealed = profiled_run(tmp_path / "here" / "~" / "runs")
    done = run_cli("inspect", "--json", home=home, cwd=Path.cwd(), env={"CIRRON_OUTPUT_DIR": "~/runs"})
    document = done.json()
    assert isinstance(document, dict)
    assert (document["files"], document["dir"]) == (len(sealed), f"{tmp_path}/here/~/runs/spool")


@pytest.mark.parametrize(
    "command", [("inspect",), ("clear", "--force"), ("quarantine", "list"), ("quarantine", "retry")]
)
def test_the_commands_need_the_file_only_where_nothing_else_names_the_spool(
    home: Path, command: tuple[str, ...]
) -> None:
    here = Path.cwd()
    put_toml(home, "[default]\noutput_dir = 't'\n")
    done = run_cli(*command, home=home, cwd=here)
    assert done.returncode == 0, done.stderr
    assert f"{here}/t" in done.stdout + done.stderr
    file = put_toml(home, "[default")
    done = run_cli(*command, home=home, cwd=here)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line == (f"Error: {file} is not valid TOML. Correct it, or pass --dir the spool directory.")
    assert run_cli(*command, "--dir", "t/spool", home=home, cwd=here).returncode == 0
    assert run_cli(*command, home=home, cwd=here, env={"CIRRON_OUTPUT_DIR": "t"}).returncode == 0


def test_inspect_loads_no_parser_for_a_file_that_is_not_there(home: Path) -> None:
    code = (
        "import sys; from cirron_spool import inspect_spool; inspect_spool(); print('tomllib' in sys.modules)"
    )
    answers = []
    for text in (None, "[default]"):
        if text is not None:
            put_toml(home, text)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
        answers.append(done.stdout.strip())
    assert answers == ["False", "True"]
