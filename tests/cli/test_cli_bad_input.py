"""Wrong arguments, unusable directories, unusable configurations: one clear line, the right exit code, no harm."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cirron_spool import Tuning, __version__
from cirron_spool.cli.arguments.build import build_parser, parse
from support.cli import CliResult, clean_environment, command_line, spawn, write_config
from support.fork_server import run_cli
from support.scripted import ScriptedServer
from support.spools import TINY, Sealed, sdk_batches, snapshot

TOKEN = "sk-very-secret-0123456789"


def is_one_line(done: CliResult, code: int = 2) -> str:
    """The one line that a command said before it ended with `code`, without its ``Error: ``."""
    assert done.stdout == ""
    assert done.returncode == code, done.stderr
    assert re.fullmatch(r"Error: [^\n]+\n", done.stderr), done.stderr
    assert "\x1b" not in done.stderr
    return done.stderr.removeprefix("Error: ").rstrip("\n")


def spool(home: Path) -> list[Sealed]:
    """Two tiny batches below `home`."""
    return sdk_batches(home / ".cirron/spool", 2, spans=TINY)


def stopped(home: Path, *args: str, code: int = 2, env: dict[str, str] | None = None) -> str:
    """The ``Error: `` line of a flush that ends before it sends anything; the spool stays."""
    before = snapshot(home / ".cirron/spool")
    done = run_cli("flush", *args, home=home, cwd=home, env=env)
    assert done.returncode == code, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert snapshot(home / ".cirron/spool") == before
    return errors[0].removeprefix("Error: ")


# -- arguments ---------------------------------------------------------------------------------------------------


def test_help_and_version() -> None:
    top = run_cli("--help")
    assert (top.returncode, top.stderr) == (0, "")
    for command in ("inspect", "flush", "clear", "quarantine", "receive"):
        assert re.search(rf"^ +{command}\b", top.stdout, re.MULTILINE)
    assert "exit codes: 0 " in top.stdout
    flush = run_cli("spool", "flush", "--help", prog="cirron")
    assert flush.stdout.startswith("usage: cirron spool flush ")
    for option in (
        "--dir",
        "--token-file",
        "--timeout",
        "--retries",
        "--quarantine",
        "--keep-going",
        "--in-flight",
    ):
        assert option in flush.stdout
    for option in ("--version", "-V"):
        assert run_cli(option).stdout == f"cirron-spool {__version__}\n"


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ["frob"],
            "There is no command 'frob'. There are: inspect, flush, clear, quarantine, receipts, receive, ",
        ),
        (["inspct"], "There is no command 'inspct'. Did you mean inspect?"),
        (["Clear", "--force"], "There is no command 'Clear'. Did you mean clear?"),
        (["spool", "flush"], "There is no command 'spool'. Did you mean flush?"),
        (["quarantine", "lst"], "There is no command 'lst'. Did you mean list?"),
        (["help", "flsh"], "There is no command 'flsh'. Did you mean flush?"),
        (["inspekt\x1b[31m"], r"There is no command 'inspekt\x1b[31m'. Did you mean inspect?"),
        (["x" * 500], f"There is no command '{'x' * 60}…'."),
        (["inspect", "--frob\x1b[2J"], r"There is no option '--frob\x1b[2J'."),
        (["inspect", "--jsn"], "There is no option '--jsn'. Did you mean --json?"),
        (["inspect", "--jso"], "There is no option '--jso'. Did you mean --json?"),  # abbreviations are not taken
        # The only option that begins so, though another one looks more like it.
        (["clear", "--dry"], "There is no option '--dry'. Did you mean --dry-run?"),
        (["flush", "--gzip-l", "zlib"], "There is no option '--gzip-l'. Did you mean --gzip-level?"),
        (["flush", "--token-file", ""], "--token-file needs the path of a file, and it is empty. See"),
        (["flush", "--log-file="], "--log-file needs the path of a file, and it is empty. See"),
        (["receive", "--store", ""], "--store needs the path of a directory, and it is empty. See"),
        (["flush", "--retry=3"], "There is no option '--retry'. Did you mean --retries?"),
        (["receive", "--stor", "x"], "There is no option '--stor'. Did you mean --store?"),
        (["--dir", "x", "inspect"], "--dir goes after the command, as in cirron-spool inspect --dir runs/42/"),
        (["--dir=x", "clear"], "--dir goes after the command, as in cirron-spool inspect --dir "),
        (["quarantine", "--force", "clear"], "as in cirron-spool quarantine clear --force."),
        (["-x"], "There is no option '-x'."),
        (["version"], "There is no command 'version'. Did you mean --version?"),
        (["hlep"], "There is no command 'hlep'. Did you mean help?"),
        (["inspect", "--xyz"], "There is no option '--xyz'. See"),
        (["inspect", "-"], "There is no option '-'. See"),
        (["inspect", "my runs"], "Unexpected argument 'my runs'. For a directory, use --dir DIR: --dir 'my runs'."),
        (["flush", "--quarantine=no"], "--quarantine takes no value."),
        (["inspect", "--dir"], "--dir needs a value, as in --dir runs/42/.cirron/spool."),
        (["inspect", "--dir", "-x"], "A value that begins with a dash is joined to it: --dir=-x."),
        (["flush", "--token-file", "--verbose"], "--token-file needs a value, as in --token-file token.txt."),
        (["flush", "--timeout=1s", "--timeout", "2s"], "--timeout was given twice. Give it once."),
        (["flush", "--in-flight", "1", "--in-flight", "1"], "--in-flight was given twice. Give it once."),
        (["quarantine", "retry", "--dir", "a", "b", "--dir", "c"], "--dir was given twice. Give it once."),
        (["receive", "--store", "a", "--store", "b"], "--store was given twice. Give it once."),
        (["flush", "--timeout", "0"], "--timeout needs a time from 1ms to 24h, with a unit"),
        (["flush", "--timeout", "25h"], "--timeout needs a time from 1ms to 24h, with a unit"),
        (["flush", "--timeout", "1.5"], "for example --timeout 30s. It cannot be '1.5'."),
        (["flush", "--timeout", "5M"], "for example --timeout 30s. It cannot be '5M'."),
        (["flush", "--timeout", "30 seconds"], "for example --timeout 30s. It cannot be '30 seconds'."),
        (["flush", "--timeout", "-5s"], "--timeout needs a value"),
        (["flush", "--timeout", "1e9999"], "for example --timeout 30s."),
        (["flush", "--timeout", "٣"], "for example --timeout 30s."),
        (["flush", "--prefetch-bytes", "4Mb"], "for example --prefetch-bytes 4M. It cannot be '4Mb'."),
        (["flush", "--prefetch-bytes", "4,5M"], "for example --prefetch-bytes 4M."),
        (["flush", "--retries", "-1"], "--retries needs a whole number from 0 to 100, for example --retries 3."),
        (["flush", "--retries", "9" * 5000], "--retries needs a whole number"),
        (["flush", "--in-flight", "65"], "--in-flight needs a whole number from 1 to 64, or auto, for example"),
        (["flush", "--in-flight", "zero"], "for example --in-flight 8. It cannot be 'zero'."),
        (["flush", "--chunk-bytes", "0"], "--chunk-bytes needs a size of 1 or more, with a unit"),
        (["flush", "--quiet", "--verbose"], "--quiet and --verbose exclude each other. Choose one."),
        (["flush", "--metrics-file", "-"], "--metrics-file needs the path of a file. For a file named -, give ./-. "),
        (["flush", "--log-file=-"], "--log-file needs the path of a file. For a file named -, give ./-."),
        (["receipts", "verify", "-"], "FILE needs the path of a file. For a file named -, give ./-."),
        (["receive"], "cirron-spool receive needs --store, for example --store received."),
        (["receive", "--store", "x", "--port", "65536"], "--port needs a whole number from 0 to 65535"),
        (["receive", "--store", "x", "--bandwidth", "8Mbit"], "for example --bandwidth 1M. It cannot be '8Mbit'."),
    ],
    ids=lambda value: " ".join(value)[:40].replace("\x1b", "ESC") if isinstance(value, list) else "",
)  # fmt: skip
def test_wrong_usage(args: list[str], said: str) -> None:
    line = is_one_line(run_cli(*args))
    assert said in line
    assert re.search(r" See cirron-spool( \w+)* --help\.$", line)
    assert len(line) < 400


@pytest.mark.parametrize(
    ("args", "usage"),
    [([], "usage: cirron-spool "), (["quarantine"], "usage: cirron-spool quarantine ")],
)
def test_without_a_command_there_is_the_help(args: list[str], usage: str) -> None:
    done = run_cli(*args)
    assert done.returncode == 2
    assert done.stdout.startswith(usage)
    assert re.fullmatch(
        r"Error: No command was given\. There are: .+ See cirron-spool.* --help\.\n", done.stderr
    )


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        ("help", "usage: cirron-spool [-h]"),
        ("-h", "usage: cirron-spool [-h]"),
        ("help flush", "usage: cirron-spool flush "),
        ("flush -h", "usage: cirron-spool flush "),
        ("flush help", "usage: cirron-spool flush "),
        ("quarantine retry help", "usage: cirron-spool quarantine retry "),
        ("help quarantine", "usage: cirron-spool quarantine [-h] ACTION"),
        ("quarantine help clear", "usage: cirron-spool quarantine clear "),
        ("help quarantine list", "usage: cirron-spool quarantine list "),
    ],
)
def test_help_for_each_command(words: str, usage: str) -> None:
    done = run_cli(*words.split())
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(usage)
    assert done.stdout.count("\n") > 5
    assert not done.stdout.endswith("\n\n")


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        ("timeout", "1500", 1500),
        ("timeout", "500ms", 500),
        ("timeout", "30s", 30_000),
        ("timeout", "0.25s", 250),
        ("timeout", "2m", 120_000),
        ("timeout", "1.5 h", 5_400_000),
        ("prefetch-bytes", "4096", 4096),
        ("prefetch-bytes", "4096B", 4096),
        ("prefetch-bytes", "4M", 4 << 20),
        ("prefetch-bytes", "4MB", 4 << 20),
        ("chunk-bytes", "64KiB", 64 << 10),
        ("chunk-bytes", "64k", 64 << 10),
        ("chunk-bytes", "64kB", 64 << 10),
        ("max-bytes", "1.5G", 3 << 29),
        ("max-bytes", "512mb", 512 << 20),
        ("max-snapshot-bytes", "2G", 2 << 30),
        ("latency-ms", "0", 0),
        ("latency-ms", "1.5s", 1500),
        ("bandwidth", "300KB/s", 300 << 10),
        ("bandwidth", "1M", 1 << 20),
    ],
)
def test_values_with_units(option: str, text: str, value: int) -> None:
    receiver = option in ("max-bytes", "max-snapshot-bytes", "latency-ms", "bandwidth")
    words = ["receive", "--store", "x"] if receiver else ["flush"]
    parsed = vars(parse("cirron-spool", [*words, f"--{option}", text]))
    assert parsed["timeout_ms" if option == "timeout" else option.replace("-", "_")] == value


def test_options_may_stand_between_the_names_of_batches() -> None:
    for words in ("a --dir x b", "--dir x a b", "a b --dir=x", "--dir x -- a b"):
        options = parse("cirron-spool", ["quarantine", "retry", *words.split()])
        assert (options.dir, options.names) == ("x", ["a", "b"])


def test_what_the_errors_build_on_in_argparse() -> None:
    """`Parser.options` asks a private attribute: each option string, and its action."""
    for parser in build_parser("cirron-spool").commands.values():
        usage = set(re.findall(r"(?<!\w)--?[a-z][a-z-]*", parser.format_usage()))
        assert usage <= set(parser.options)
        assert all(name in action.option_strings for name, action in parser.options.items())


def test_numbers_and_names_that_only_the_flush_can_judge(tmp_path: Path) -> None:
    written = spool(tmp_path)
    env = {"CIRRON_API_KEY": TOKEN, "CIRRON_API_ENDPOINT": "http://127.0.0.1:1"}
    for args, said in (
        (["--timeout", "86400001"], "24h"),
        (["--retries", "101"], "100"),
        (["--gzip-library", "lz4\x1b[31m"], "lz4"),
        (["--gzip-level", "77"], "77"),
        (["--disk-work", "fast"], "--disk-work needs one of inline, thread"),
    ):
        assert said in stopped(tmp_path, *args, env=env), args
    assert snapshot(tmp_path / ".cirron/spool") == written


@pytest.mark.parametrize("place", ["thread", "inline"])
def test_the_disk_work_has_two_places(tmp_path: Path, place: str) -> None:
    written = spool(tmp_path)
    with ScriptedServer() as server:
        env = {"CIRRON_API_KEY": TOKEN, "CIRRON_API_ENDPOINT": server.url}
        done = run_cli("flush", "--disk-work", place, home=tmp_path, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert [request.batch_id for request in server.uploads] == [batch.batch_id for batch in written]
    assert snapshot(tmp_path / ".cirron/spool") == []


# -- the directory -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["inspect"], ["flush"], ["clear", "--force"]], ids=lambda c: c[0])
def test_a_directory_that_is_none(tmp_path: Path, command: list[str]) -> None:
    file = tmp_path / "a\x1b[31mfile"
    file.write_bytes(b"precious")
    line = is_one_line(run_cli(*command, "--dir", file))
    assert line == rf"{tmp_path}/a\x1b[31mfile is not a directory. Pass --dir the spool directory."
    assert file.read_bytes() == b"precious"
    assert "--dir" in is_one_line(run_cli(*command, "--dir", ""))
    below = run_cli(*command, "--dir", file / "spool")
    assert below.returncode == 2


def test_a_current_directory_that_is_gone(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = 'rmdir "$PWD" && exec "$@"'
    for command in (["inspect"], ["flush"], ["clear", "--force"]):
        gone.mkdir(exist_ok=True)
        with spawn(["sh", "-c", script, "sh", *command_line(command)], cwd=gone) as running:
            line = is_one_line(running.finish())
        assert line.startswith("The current directory does not exist any more.")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_directory_that_may_not_be_read(tmp_path: Path) -> None:
    closed = tmp_path / "spool"
    closed.mkdir(mode=0)
    for command in (["inspect"], ["flush"], ["clear", "--force"]):
        assert "Permission denied" in is_one_line(run_cli(*command, "--dir", closed))


# -- configuration and credentials -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"auth": []}',
        b'{"token": 7}',
        b'{"token": "t", "timeout": true}',
        b'{"token": "t", "retries": 1.5}',
        b'{"apiUrl": "ftp://x", "token": "t"}',
        b'{"apiUrl": "https://user:pw@x", "token": "t"}',
    ],
    ids=lambda text: text[:24].decode("latin-1"),
)
def test_an_unusable_configuration_is_named_and_left_alone(tmp_path: Path, text: bytes) -> None:
    spool(tmp_path)
    config = write_config(tmp_path)
    config.write_bytes(text)
    inode = config.stat().st_ino
    assert str(config) in stopped(tmp_path)
    assert config.read_bytes() == text
    assert config.stat().st_ino == inode
    assert {path.name for path in config.parent.iterdir()} == {"config.json", "spool"}


def test_a_configuration_that_is_no_file_or_everybodys(tmp_path: Path) -> None:
    spool(tmp_path)
    config = write_config(tmp_path, token=TOKEN)
    config.chmod(0o666)
    assert "every user" in stopped(tmp_path)
    config.unlink()
    os.mkfifo(config)
    assert "is not a file" in stopped(tmp_path)
    config.unlink()
    config.mkdir()
    assert str(config) in stopped(tmp_path)


def test_a_token_that_no_header_may_carry_is_refused_unshown(tmp_path: Path) -> None:
    spool(tmp_path)
    key = tmp_path / "key"
    with ScriptedServer() as server:
        for bad in ("\x1b[31m", "\r\nX-Evil: 1", "\x00", "é"):
            write_config(tmp_path, apiUrl=server.url, token=f"{TOKEN}{bad}{TOKEN}")
            assert "config.json" in stopped(tmp_path)
        key.write_text(f"{TOKEN}\n{TOKEN}\n", encoding="utf-8")
        stopped(tmp_path, "--token-file", str(key))
        assert "CIRRON_API_KEY" in stopped(tmp_path, env={"CIRRON_API_KEY": f"{TOKEN} {TOKEN}"})
        assert server.connections == 0


def test_a_token_file_that_holds_none(tmp_path: Path) -> None:
    spool(tmp_path)
    empty = tmp_path / "empty"
    empty.write_bytes(b" \n")
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\xfd")
    missing = tmp_path / "miss\x1bing"
    for path, shown in (
        (empty, "empty"),
        (binary, "binary"),
        (tmp_path, str(tmp_path)),
        (missing, r"miss\x1bing"),
    ):
        line = stopped(tmp_path, "--token-file", str(path))
        assert shown in line
        assert "--token-file" in line
    assert "standard input" in stopped(tmp_path, "--token-file", "-")
    long = tmp_path / "long"
    long.write_bytes(b"s" * 70_000)
    assert "more than a token" in stopped(tmp_path, "--token-file", str(long))


def test_a_token_file_of_powershell(tmp_path: Path) -> None:
    spool(tmp_path)
    (tmp_path / "key").write_bytes("\ufeffsk-long-lived\r\n".encode("utf-16-le"))
    with ScriptedServer() as server:
        done = run_cli("flush", "--api-url", server.url, "--token-file", "key", home=tmp_path, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert {request.headers["Authorization"] for request in server.requests} == {"Bearer sk-long-lived"}


def test_plain_http_to_another_machine(tmp_path: Path) -> None:
    spool(tmp_path)
    for url in ("http://127.0.0.1.example", "HTTP://10.0.0.1:8787"):
        write_config(tmp_path, apiUrl=url, token=TOKEN)
        assert "plain http" in stopped(tmp_path)
    for url in ("https://", "https://host:99999", "https://h\x1b[31m/"):
        assert "not a web address" in stopped(tmp_path, "--api-url", url, env={"CIRRON_API_KEY": TOKEN})


def test_without_a_home(tmp_path: Path) -> None:
    written = sdk_batches(tmp_path / "spool", 1, spans=TINY)
    environment = clean_environment(tmp_path)
    del environment["HOME"]
    results = []
    for command in (["inspect"], ["flush"]):
        argv = command_line([*command, "--dir", tmp_path / "spool"])
        results.append(
            subprocess.run(
                argv,
                env=environment,
                cwd=tmp_path,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        )
    assert results[0].returncode == 0
    # The password database has a home, whose configuration is not this test's: all that must not happen is a crash.
    assert results[1].returncode in (0, 1, 2, 3, 4)
    assert b"Traceback" not in results[1].stderr
    assert snapshot(tmp_path / "spool") == written


# -- the parser --------------------------------------------------------------------------------------------------


def test_the_parser_needs_nothing_but_the_standard_library() -> None:
    # -S leaves site-packages out: the man pages are built where only this checkout is.
    code = (
        "import sys; before = set(sys.modules); sys.path.insert(0, sys.argv[1])\n"
        "from cirron_spool.cli.arguments.build import build_parser\n"
        "for prog in ('cirron-spool', 'cirron'): build_parser(prog).format_help()\n"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}"
        " - set(sys.stdlib_module_names)))"
    )
    root = Path(sys.modules["cirron_spool"].__file__ or "").parent.parent
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(root)], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("cirron_spool\n", "")


def test_the_two_parsers_have_the_same_commands() -> None:
    ours = build_parser("cirron-spool").parse_args(["flush", "--dir", "x", "--in-flight", "3"])
    theirs = build_parser("cirron").parse_args(["spool", "flush", "--dir", "x", "--in-flight", "3"])
    assert {**vars(ours), "command": None} == {**vars(theirs), "command": None}


def test_the_help_tells_the_defaults_that_hold() -> None:
    text = " ".join(run_cli("flush", "--help").stdout.split())
    for option in ("prefetch_batches", "prefetch_bytes", "chunk_bytes"):
        flag = "--" + option.removesuffix("_batches").replace("_", "-")
        found = re.search(rf"{flag} [A-Z]+ [^-]*\(default: (\d+)\)", text)
        assert found is not None, flag
        assert int(found[1]) == getattr(Tuning(), option), flag
