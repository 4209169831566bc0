"""The benchmarks run end to end on small spools. No time is judged here."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from cirron_spool.spool.names import format_batch_name

REPOSITORY = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(
    not (REPOSITORY / "benchmarks").is_dir() or os.name != "posix",
    reason="the benchmarks are in the checkout, and need POSIX",
)


def run(*arguments: str, code: int = 0) -> tuple[str, str]:
    """Both streams of ``python -m benchmarks``, in this process: each contender has a process of its own."""
    from benchmarks import cli

    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        handler = signal.getsignal(signal.SIGTERM)
        try:
            ended: object = cli.main(arguments)
        except SystemExit as usage:
            ended = usage.code
        finally:
            signal.signal(signal.SIGTERM, handler)
    assert ended == code, err.getvalue()
    return out.getvalue(), err.getvalue()


def measured(place: Path, *arguments: str) -> dict[str, Any]:
    """The document of ``--json``; the run leaves nothing in ``place``."""
    out, _ = run(*arguments, "--where", str(place), "--json", "-")
    assert list(place.iterdir()) == []
    document: dict[str, Any] = json.loads(out)
    return document


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkout is last on the path, so that the package under test stays the installed one."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(REPOSITORY)])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from benchmarks import spools

    # Where it is a disk, each copy of a spool would wait until all disks of the machine are written.
    monkeypatch.setattr(spools, "file_system", lambda _: "tmpfs")
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


def names(cell: dict[str, Any]) -> list[str]:
    return [each["name"] for each in cell["contenders"]]


def errors(document: dict[str, Any]) -> list[str]:
    return [each["error"] for cell in document["cells"] for each in cell["contenders"] if each["error"]]


def test_throughput_has_both_strategies_beside_the_floor_and_node(place: Path) -> None:
    found = measured(place, "--spool", "tiny", "--batches", "4", "--repeat", "1", "--latency-ms", "1")
    assert set(found) == {"schema", "command", "machine", "options", "figures", "goals", "cells"}
    assert found["command"] == "throughput"
    assert {"cpus", "python", "libraries", "system", "node"} <= set(found["machine"])
    assert errors(found) == []
    assert [(cell["spool"], cell["latency_ms"]) for cell in found["cells"]] == [("tiny", 1)]
    for cell in found["cells"]:
        assert cell["batches"] == 4
        assert names(cell) == ["floor", "thread", "inline", *(["node"] if shutil.which("node") else [])]
        for each in cell["contenders"]:
            assert len(each["runs"]) == 1
            assert all(one["seconds"] > 0 and one["peak_bytes"] > 1_000_000 for one in each["runs"])
        floor, thread, inline = (
            [one["sent_bytes"] for one in each["runs"]] for each in cell["contenders"][:3]
        )
        assert floor == thread == inline


def test_throughput_measures_three_latencies_by_default() -> None:
    from benchmarks import cli

    asked = cli.build_parser("throughput").parse_args([])
    assert asked.spool == ["typical", "tiny"]
    assert asked.latency_ms == [0, 1, 20]
    assert asked.contenders == ["floor", "thread", "inline", "node"]


def test_the_document_has_no_path_and_no_host(place: Path) -> None:
    options = ("--spool", "tiny", "--batches", "1", "--repeat", "2", "--latency-ms", "0")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks",
            *options,
            "--contenders",
            "floor",
            "--where",
            place,
            "--json",
            "-",
        ],
        cwd=REPOSITORY,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [len(each["runs"]) for each in found["cells"][0]["contenders"]] == [2]
    text = json.dumps(found)
    assert str(place) not in text
    assert str(REPOSITORY) not in text
    assert os.uname().nodename not in text or os.uname().nodename in found["machine"].values()


def test_a_users_own_spool_is_copied_and_not_touched(place: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    batches = {format_batch_name(10**18 + index, f"{index:032x}"): b'{"n": NaN}' * 200 for index in range(3)}
    for name, content in batches.items():
        (own / name).write_bytes(content)
    (own / "notes.txt").write_text("mine")
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in own.iterdir()}
    found = measured(
        place, "--spool", str(own), "--repeat", "1", "--latency-ms", "0", "--contenders", "floor,thread"
    )
    (cell,) = found["cells"]
    assert cell["spool"] == "own"
    assert cell["batches"] == 3
    assert errors(found) == []
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in own.iterdir()} == before


def test_lateness_has_the_flush_and_the_first_flush_of_a_process(place: Path) -> None:
    found = measured(place, "lateness", "--spool", "tiny", "--batches", "5", "--repeat", "1")
    (cell,) = found["cells"]
    assert names(cell) == ["flush", "first flush"]
    assert errors(found) == []
    for each in cell["contenders"]:
        for part in ("alone", "flush"):
            assert set(each["runs"][0]["lateness"][part]) == {"ticks", "p50", "p99", "worst"}


def test_memory_of_many_batches(place: Path) -> None:
    found = measured(place, "memory", "--counts", "3", "--no-large", "--repeat", "1")
    (cell,) = found["cells"]
    assert (cell["spool"], cell["batches"]) == ("3 typical", 3)
    assert names(cell) == ["thread", "inline"]
    assert errors(found) == []


def test_startup_shows_inspect_beside_bare_commands(place: Path) -> None:
    shown = run("startup", "--files", "20", "--repeat", "1", "--where", str(place))[0]
    for command in ("inspect, an empty spool", "python -c pass", "inspect --json", "scandir, stat, sort"):
        assert command in shown


def test_window_has_requests_in_flight_and_strict_order(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import compare

    assert compare.STRATEGIES == ("thread", "inline")
    monkeypatch.setattr(compare, "STRATEGIES", ("inline",))
    found = measured(
        place,
        *("window", "--spool", "tiny", "--batches", "6", "--in-flight", "3"),
        *("--repeat", "1", "--latency-ms", "20"),
    )
    (cell,) = found["cells"]
    assert names(cell) == ["inline", "inline-3"]
    strict, three = cell["contenders"]
    assert strict["runs"][0]["open_most"] == 1
    assert 1 <= three["runs"][0]["open_most"] <= 3


def test_many_has_one_at_a_time_beside_several(place: Path) -> None:
    options = ("--spools", "2", "--batches", "2", "--at-once", "2", "--archive", "3", "--latency-ms", "1")
    shown = run("many", *options, "--repeat", "1", "--where", str(place))[0]
    assert "2 spools of 2 batches at 1 ms a request" in shown
    assert "3 spools of 3 batches: os.walk" in shown


def test_tune_suggests_flags(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.commands import tune

    assert [setting.name for setting in tune.settings("in-flight")] == [
        f"--in-flight {count}" for count in (2, 4, 8, 16)
    ]
    monkeypatch.setitem(tune._FACTORS, "in-flight", ("in_flight", (4,)))
    options = ("--spool", "tiny", "--batches", "8", "--repeat", "1", "--factors", "in-flight")
    found = measured(place, "tune", *options)
    (tuned,) = found["tune"]
    assert [set(factor) for factor in tuned["factors"]] == [{"factor", "best", "times_as_fast", "noise"}]
    assert names(found["cells"][0]) == ["default", "--in-flight 4"]
    for suggestion in tuned["suggestions"]:
        assert suggestion["flags"].startswith("--disk-work") and "--in-flight" in suggestion["flags"]
        assert suggestion["call"]


def test_the_command_takes_every_setting_that_is_tuned() -> None:
    from benchmarks.commands import tune
    from cirron_spool.cli.arguments.build import parse

    for factor in ("prefetch", "prefetch-bytes", "chunk-bytes", "disk-work", "gzip", "in-flight"):
        assert tune.settings(factor)
        for setting in tune.settings(factor):
            parse("cirron-spool", ["flush", *setting.flags.split()])


def test_a_goal_passes_fails_or_is_not_measured() -> None:
    from benchmarks import goals

    figures = {"throughput tiny 0ms thread: times floor": 1.7, "startup inspect: times node -e 0": 2.1}
    judged = {each["goal"]: each["passed"] for each in goals.judge(figures, missing=True)}
    assert judged.pop("throughput tiny 0ms thread: times floor") is True
    assert judged.pop("startup inspect: times node -e 0") is False
    assert set(judged.values()) == {None}
    assert len(judged) == 64
    assert [each["passed"] for each in goals.judge(figures)] == [True, False]


def test_the_goals_are_figures_that_the_commands_record(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run of each command records every figure that has a limit.

    The deliveries are made up: the tests above have real ones of each command.
    """
    from benchmarks import cli, compare, goals, sink_client, spools
    from benchmarks.commands import goals as command
    from benchmarks.commands import many, memory, watch

    # Imported before the sink is replaced: its deliveries are real.
    monkeypatch.setattr(watch, "_SETTLE_S", 0.0)

    shapes = {name: spools.Shape(name, 2, 2_000, 3_000) for name in spools.SHAPES}
    large = tuple(spools.Shape(each.name, 1, 2_000, 3_000) for each in memory.LARGE)
    multiply = spools.Workspace.multiply
    monkeypatch.setattr(spools, "SHAPES", shapes)
    monkeypatch.setattr(memory, "SHAPES", shapes)
    monkeypatch.setattr(memory, "LARGE", large)
    monkeypatch.setattr(spools.Workspace, "multiply", lambda self, spool, _: multiply(self, spool, 2))
    late = {part: {"ticks": 1.0, "p50": 0.1, "p99": 0.2, "worst": 0.3} for part in ("alone", "flush")}
    monkeypatch.setattr(sink_client, "running_sink", lambda *_: nullcontext())
    monkeypatch.setattr(compare, "run_once", lambda *_, proof: compare.Run(1.0, 1.0, 2, 1, 1, 1.0, 1, late))
    outcome = {"seconds": 1.0, "cpu_seconds": 1.0, "peak_bytes": 1}
    monkeypatch.setattr(many, "_flush", lambda *_: outcome)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # this process keeps its handlers
    plan = (
        ("throughput", "--spool typical,tiny,big,huge --latency-ms 0"),
        ("throughput", "--spool typical,tiny --latency-ms 1,20 --contenders floor,thread,inline"),
        ("lateness", ""),
        ("memory", ""),
        ("window", "--batches 2 --latency-ms 50"),
        ("many", "--spools 1 --batches 1 --archive 2"),
        ("startup", "--files 10"),
        ("watch", "--idle-seconds 1 --sdk-seconds 1 --hours 6"),
    )
    small = tuple(
        (name, f"{arguments} {'--repeat 1' if name != 'watch' else ''} --where {place}")
        for name, arguments in plan
    )
    monkeypatch.setattr(command, "FULL", small)
    target = place / "goals.json"
    cli.main(["goals", "--json", str(target)])
    document = json.loads(target.read_text())
    assert errors(document) == []
    missing = [each["goal"] for each in document["goals"] if each["passed"] is None]
    assert [goal for goal in missing if "node" not in goal or shutil.which("node")] == []
    assert {each["goal"] for each in document["goals"]} == {goal.figure for goal in goals.GOALS}


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--contenders", "nobody"), 1, "Error: No such contender: nobody"),
        (("--spool", "nowhere"), 1, "Error: No such spool: nowhere"),
        (("--batches", "0"), 2, "must be 1 or more"),
        (("--batches", "x"), 2, "invalid positive list value"),
        (("--batches", "1,2,3"), 1, "Error: --batches needs one number"),
        (("--where", "/nonexistent/place"), 1, "Error: "),
        (("tune", "--factors", "luck"), 1, "Error: No such factor: luck"),
    ],
)
def test_an_impossible_measurement_is_one_line(
    place: Path, arguments: Sequence[str], code: int, says: str
) -> None:
    where = () if "--where" in arguments else ("--where", str(place))
    _, said = run(*arguments, *where, code=code)
    assert says in said.splitlines()[-1]
    assert "Traceback" not in said


class TestDeliveryCheck:
    """An incomplete delivery is an error, and no figure."""

    @pytest.fixture
    def spool(self, tmp_path: Path) -> Any:
        from benchmarks.spools import Spool

        listed = []
        for index in range(2):
            listed.append(format_batch_name(time.time_ns() + index, f"{index:032x}"))
            (tmp_path / listed[-1]).write_bytes(b"{}" * (index + 1))
        return Spool("test", tmp_path, tuple(listed), 6)

    def check(self, spool: Any, left: int = 0, reported: int = 2, **received: Any) -> None:
        from benchmarks import compare
        from benchmarks.sink import Tally

        tally = {"finished": 2, "started": spool.ids, "sent_bytes": 6, "trailer_bytes": 6, "open_most": 1}
        compare.check_delivery(
            spool,
            compare.strategy("thread"),
            {"sent_bytes": 6, "batches": reported},
            Tally(**{**tally, **received}),
            left,
        )

    def test_a_complete_delivery_is_accepted(self, spool: Any) -> None:
        self.check(spool)
        proofs = {spool.ids[0]: [2, zlib.crc32(b"{}")], spool.ids[1]: [4, zlib.crc32(b"{}{}")]}
        self.check(spool, proving=True, proofs=proofs)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"finished": 1},
            {"reported": 1},
            {"left": 1},
            {"sent_bytes": 5},
            {"trailer_bytes": 5},
            {"open_most": 2},
            {"started": ["0" * 32, "0" * 32]},
            {"proving": True},
        ],
    )
    def test_an_incomplete_delivery_is_an_error(self, spool: Any, wrong: dict[str, Any]) -> None:
        from benchmarks.errors import BenchmarkError

        with pytest.raises(BenchmarkError):
            self.check(spool, **wrong)

    def test_another_order_is_an_error(self, spool: Any) -> None:
        from benchmarks.errors import BenchmarkError

        with pytest.raises(BenchmarkError, match="another order"):
            self.check(spool, started=spool.ids[::-1])


def test_the_sink_reads_bodies_of_every_framing(place: Path) -> None:
    """Chunks of one byte, of seven, of all bytes; a plain body; a damaged one; a request without a batch."""
    from benchmarks.sink_client import Network, running_sink

    plain = b'{"spans":[]}' * 500
    packed = gzip.compress(plain)
    with running_sink(Network(), place) as sink:
        sink.reset(proof=True)
        connection = http.client.HTTPConnection(urlsplit(sink.url).netloc, timeout=30)
        for cut in (1, 7, len(packed)):
            pieces = [packed[start : start + cut] for start in range(0, len(packed), cut)]
            headers = {"X-Cirron-Batch-Id": f"{cut:x}", "Content-Encoding": "gzip"}
            connection.request("POST", "/api/traces", iter(pieces), headers, encode_chunked=True)
            assert json.loads(connection.getresponse().read()) == {"success": True}
        for batch_id, headers in (("aa", {}), ("bb", {"Content-Encoding": "gzip"})):
            connection.request("POST", "/api/traces", plain, {"X-Cirron-Batch-Id": batch_id, **headers})
            connection.getresponse().read()
        connection.request("GET", "/elsewhere")
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 404
        connection.close()
        tally = sink.tally()
    whole = ["1", "7", f"{len(packed):x}", "aa"]
    assert tally.started == [*whole, "bb"]
    assert tally.finished == 5
    assert tally.proofs == {**{each: [len(plain), zlib.crc32(plain)] for each in whole}, "bb": [-1, 0]}
    assert tally.sent_bytes == 3 * len(packed) + 2 * len(plain)
    assert tally.open_most == 1
