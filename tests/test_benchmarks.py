"""The benchmarks run end to end on tiny spools and say what their README says. No time is judged here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cirron_spool.spool.names import format_batch_name

REPOSITORY = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(
    not (REPOSITORY / "benchmarks").is_dir() or os.name != "posix",
    reason="the benchmarks are in the checkout, and need POSIX",
)


def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """``python -m benchmarks`` with ``arguments``, which must end with ``code``."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


def measured(place: Path, *arguments: str) -> dict[str, Any]:
    """What ``--json`` holds after ``arguments``; nothing is left behind in ``place``."""
    done = run(*arguments, "--where", str(place), "--json", "-")
    assert list(place.iterdir()) == []
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind everything else, so that the package under test stays the installed one."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(REPOSITORY)])


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


def names(cell: dict[str, Any]) -> list[str]:
    return [each["name"] for each in cell["contenders"]]


def test_the_comparison_has_every_contender_and_the_documented_keys(place: Path) -> None:
    found = measured(
        *(place, "--batches", "4", "--min-kb", "1", "--max-kb", "3", "--repeat", "2", "--in-flight", "2"),
        *("--spool", "typical", "--latency-ms", "0"),
    )
    assert set(found) == {"schema", "command", "machine", "options", "cells", "goals"}
    assert found["schema"] == 1
    assert found["command"] == "throughput"
    assert {"cpus", "python", "libraries", "system", "node"} <= set(found["machine"])
    (cell,) = found["cells"]
    assert cell["batches"] == 4
    assert {"spool", "file_system", "latency_ms", "bandwidth", "sink", "json_bytes", "ratios"} <= set(cell)
    node = ["node"] if shutil.which("node") else []
    assert names(cell) == ["floor", "thread", "thread, 2 in flight", "inline", "inline, 2 in flight", *node]
    for each in cell["contenders"]:
        assert each["error"] is None
        assert len(each["runs"]) == 2
        assert {"median", "spread", "json_mb_per_second", "options"} <= set(each)
        for one in each["runs"]:
            assert one["seconds"] > 0
            assert one["peak_bytes"] > 1_000_000
            assert one["trailer_bytes"] == cell["json_bytes"]
    assert {"thread/floor", "inline/floor"} <= set(cell["ratios"])
    for goal in found["goals"]:
        assert set(goal) == {"goal", "value", "limit", "at_most", "unit", "reached"}


def test_the_document_tells_no_path_and_no_host(place: Path) -> None:
    found = measured(place, "--batches", "1", "--repeat", "1", "--contenders", "floor")
    text = json.dumps(found)
    assert str(place) not in text
    assert str(REPOSITORY) not in text
    assert os.uname().nodename not in text or os.uname().nodename in found["machine"].values()


def test_the_floor_sends_what_ours_sends(place: Path) -> None:
    found = measured(
        *(place, "--spool", "typical", "--batches", "6", "--repeat", "1", "--contenders", "floor,thread")
    )
    floor, ours = found["cells"][0]["contenders"]
    assert floor["median"]["sent_bytes"] == ours["median"]["sent_bytes"]


def test_it_delivers_to_the_receiver_as_well(place: Path) -> None:
    found = measured(
        *(place, "--spool", "typical", "--batches", "3", "--repeat", "1", "--latency-ms", "0"),
        *("--contenders", "floor,thread", "--sink", "receiver"),
    )
    assert [each["error"] for each in found["cells"][0]["contenders"]] == [None, None]


def test_a_users_own_spool_is_copied_and_not_touched(place: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    batches = {format_batch_name(10**18 + index, f"{index:032x}"): b'{"n": NaN}' * 200 for index in range(3)}
    for name, content in batches.items():
        (own / name).write_bytes(content)
    (own / "notes.txt").write_text("mine")
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in own.iterdir()}
    found = measured(
        *(place, "--spool", str(own), "--repeat", "1", "--latency-ms", "0", "--contenders", "floor,thread")
    )
    (cell,) = found["cells"]
    assert cell["spool"] == "own"
    assert cell["batches"] == 3
    assert [each["error"] for each in cell["contenders"]] == [None, None]
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in own.iterdir()} == before


def test_lateness(place: Path) -> None:
    found = measured(place, "lateness", "--spool", "tiny", "--batches", "5", "--repeat", "1")
    assert [each["contender"] for each in found["lateness"]] == ["ours", "ours, first flush of a process"]
    for each in found["lateness"]:
        for part in ("alone_ms", "flush_ms"):
            assert {"p50", "p99", "worst", "ever", "ticks"} == set(each[part])


def test_memory(place: Path) -> None:
    found = measured(place, "memory", "--counts", "3,12", "--no-large", "--repeat", "1")
    assert [(cell["spool"], cell["batches"]) for cell in found["cells"]] == [
        ("3 typical", 3),
        ("12 typical", 12),
    ]
    assert [each["error"] for cell in found["cells"] for each in cell["contenders"]] == [None, None]


def test_startup(place: Path) -> None:
    found = measured(place, "startup", "--files", "20", "--repeat", "1")
    assert not {"aiohttp", "cirron_spool.flush"} & set(found["imported"]["inspect"])
    assert "cirron-spool inspect --json" in [each["name"] for each in found["startup"][0]["commands"]]


def test_window(place: Path) -> None:
    found = measured(
        place,
        "window",
        "--spool",
        "tiny",
        "--batches",
        "6",
        "--in-flight",
        "3",
        "--repeat",
        "1",
        "--latency-ms",
        "20",
    )
    strict, three = found["cells"][0]["contenders"]
    assert strict["runs"][0]["open_most"] == 1
    assert 1 <= three["runs"][0]["open_most"] <= 3


def test_tune(place: Path) -> None:
    found = measured(
        place, "tune", "--spool", "tiny", "--batches", "8", "--repeat", "1", "--factors", "in-flight"
    )
    (tuned,) = found["tune"]
    (factor,) = tuned["factors"]
    assert set(factor) == {"factor", "best", "flags", "times_as_fast", "noise", "matters"}
    assert factor["matters"] == (factor["best"] != "default")
    assert names(found["cells"][0]) == ["default", *(f"in-flight {count}" for count in (2, 4, 8, 16))]
    for suggestion in tuned["suggestions"]:
        assert set(suggestion) == {"flags", "call", "times_as_fast", "noise", "kept"}


def test_every_setting_worth_trying_can_be_pasted() -> None:
    from benchmarks import settings
    from cirron_spool.cli.arguments import parse

    for values in settings.factors().values():
        assert values
        for setting in values:
            parse("cirron-spool", ["flush", *setting.flags().split()])


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--contenders", "nobody"), 1, "Error: No such contender: nobody"),
        (("--spool", "nowhere"), 1, "Error: No such spool: nowhere"),
        (("--batches", "0"), 2, "must be 1 or more"),
        (("--min-kb", "9", "--max-kb", "2"), 1, "Error: --min-kb is more than --max-kb"),
        (("--batches", "1,2,3"), 1, "Error: --batches needs one number"),
        (("tune", "--factors", "luck"), 1, "Error: No such factor: luck"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    place: Path, arguments: Sequence[str], code: int, says: str
) -> None:
    done = run(*arguments, "--where", str(place), code=code)
    assert says in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


class TestBelief:
    """A run that did not deliver everything is an error, not a figure."""

    @pytest.fixture
    def spool(self, tmp_path: Path) -> Any:
        from benchmarks.spools import Spool

        listed = []
        for index in range(2):
            listed.append(format_batch_name(time.time_ns() + index, f"{index:032x}"))
            (tmp_path / listed[-1]).write_bytes(b"{}" * (index + 1))
        return Spool("test", tmp_path, tuple(listed), 6)

    def believe(self, spool: Any, left: int = 0, reported: int = 2, **arrived: Any) -> None:
        from benchmarks import measure, sinks

        seen = {"batches": 2, "begun": spool.ids, "in_order": True, "sent_bytes": 6, "open_most": 1} | arrived
        outcome = {
            "seconds": 1.0,
            "cpu_seconds": 1.0,
            "peak_bytes": 1,
            "start_bytes": 1,
            "started_ns": 1,
            "sent_bytes": 6,
            "batches": reported,
        }
        measure.believe(spool, measure.ours(), outcome, sinks.Arrived(**seen), left, "proofs" in arrived)

    def test_what_arrived_whole_is_believed(self, spool: Any) -> None:
        self.believe(spool)
        self.believe(
            spool, proofs={spool.ids[0]: [2, zlib.crc32(b"{}")], spool.ids[1]: [4, zlib.crc32(b"{}{}")]}
        )

    @pytest.mark.parametrize(
        "wrong",
        [
            {"batches": 1},
            {"reported": 1},
            {"left": 1},
            {"sent_bytes": 5},
            {"open_most": 2},
            {"begun": ["0" * 32, "0" * 32]},
            {"proofs": {}},
        ],
    )
    def test_what_did_not_is_not(self, spool: Any, wrong: dict[str, Any]) -> None:
        from benchmarks.errors import BenchmarkError

        with pytest.raises(BenchmarkError):
            self.believe(spool, **wrong)

    def test_another_order_is_not(self, spool: Any) -> None:
        from benchmarks.errors import BenchmarkError

        with pytest.raises(BenchmarkError, match="oldest first"):
            self.believe(spool, begun=spool.ids[::-1])


def test_the_sink_reads_bodies_of_every_shape(place: Path) -> None:
    """Chunks of one byte, of a few and of all, a plain body, and a request that is none of a batch."""
    import gzip
    import http.client
    from urllib.parse import urlsplit

    from benchmarks import sinks, spools

    plain = b'{"spans":[]}' * 500
    packed = gzip.compress(plain)
    with (
        spools.workspace(str(place)) as workspace,
        sinks.start("answer-only", sinks.Network(), workspace) as sink,
    ):
        sink.reset(proof=True)
        where = urlsplit(sink.url)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=30)
        for cut in (1, 7, len(packed)):
            pieces = [packed[start : start + cut] for start in range(0, len(packed), cut)]
            headers = {"X-Cirron-Batch-Id": f"{cut:x}", "Content-Encoding": "gzip"}
            connection.request("POST", "/api/traces", iter(pieces), headers, encode_chunked=True)
            assert json.loads(connection.getresponse().read()) == {"success": True}
        connection.request("POST", "/api/traces", plain, {"X-Cirron-Batch-Id": "aa"})
        connection.getresponse().read()
        connection.request("GET", "/elsewhere")
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 404
        connection.close()
        arrived = sink.arrived()
    ids = ["1", "7", f"{len(packed):x}", "aa"]
    assert arrived.begun == ids
    assert arrived.batches == 4
    assert arrived.proofs == {each: [len(plain), zlib.crc32(plain)] for each in ids}
    assert arrived.sent_bytes == 3 * len(packed) + len(plain)
    assert arrived.trailer_bytes == 4 * len(plain)
    assert arrived.connections == 1
    assert arrived.open_most == 1
