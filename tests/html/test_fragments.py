"""Results as HTML: counts, the ends of a long table, and no text from outside that is markup."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from cirron_spool import (
    BatchFailure,
    ClearResult,
    FlushResult,
    FlushSpoolsResult,
    Inventory,
    read_traces,
)
from cirron_spool.html.fragments import progress_html
from cirron_spool.spool.listing import Entry
from cirron_spool.spool.names import format_batch_name
from support.runs import lay, span

EVIL = Path("/tmp/<script>alert(1)</script>\x1b[31m")


class Reader(HTMLParser):
    """The tags and the words of a fragment; each tag that needs an end has one."""

    def __init__(self, fragment: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(fragment)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self.tags.append(tag)
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += f"{data}|"


def batches(number: int) -> list[Entry]:
    return [Entry(format_batch_name(second * 10**9, "0a"), 1024) for second in range(number)]


def test_a_long_inventory_shows_its_two_ends() -> None:
    entries = batches(1000)
    read = Reader(Inventory(EVIL, entries, left_out=2)._repr_html_())
    assert read.tags.count("tr") == 1 + 10 + 1 + 10
    assert "… 980 more …" in read.words
    assert entries[9].name in read.words
    assert entries[10].name not in read.words
    assert entries[-1].name in read.words
    assert "(1000 files, 1000 KB)" in read.words
    assert "Left out by the selection: 2 files" in read.words
    assert "script" not in read.tags
    assert "\x1b" not in read.words
    short = Reader(Inventory(Path("/s"), batches(20))._repr_html_())
    assert short.tags.count("tr") == 21
    assert "No spool files found in " in Reader(Inventory(EVIL, [])._repr_html_()).words


def test_a_result_has_its_counts_failures_and_warnings() -> None:
    failures = tuple(BatchFailure(f"{number}.json", 422, f"Rejected <i>{number}</i>") for number in range(12))
    result = FlushResult(
        EVIL,
        uploaded=1234,
        failed=12,
        bytes_sent=2048,
        seconds=1.5,
        failures=failures,
        warnings=("<u>late</u>",),
    )
    read = Reader(result._repr_html_())
    assert "Uploaded|1,234|Failed|12|Skipped|0|Sent|2 KB in 1.5 s|" in read.words
    assert "Failures (the last 10 of 12):|Rejected <i>2</i>|" in read.words
    assert "<u>late</u>" in read.words
    assert not {"i", "u", "script"} & set(read.tags)


def test_progress_is_within_its_bounds() -> None:
    assert 'max="1" value="0"' in progress_html(0, 0, "", "", [])
    assert 'max="10" value="10"' in progress_html(12, 10, "", "", [])


def test_traces_are_a_table_with_trees(tmp_path: Path) -> None:
    depth = 3000
    spans = [
        span(f"s{level}", f"s{level - 1}" if level else None, "<b>x", level, 10_000) for level in range(depth)
    ]
    spans.append(span("r", None, "cirron.session", 0, 20_000))
    lay(tmp_path / "spool", 1, {"spans": spans})
    lay(tmp_path / "spool", 2, b"{")
    traces = read_traces(tmp_path / "spool")
    read = Reader(traces._repr_html_())
    assert "b" not in read.tags
    assert read.tags.count("details") == 1
    assert "cirron.session" in read.words
    assert "is skipped" in read.words
    (tmp_path / "none").mkdir()
    assert "No traces found in " in read_traces(tmp_path / "none")._repr_html_()


def test_the_text_beside_the_html_is_short(tmp_path: Path) -> None:
    """A notebook keeps the repr() of a value beside its HTML."""
    spans = [span("r", None, "cirron.session", 0, 20_000)]
    spans += [span(f"s{number}", "r", f"name {number}", number, number + 1) for number in range(2000)]
    lay(tmp_path / "spool", 1, {"spans": spans})
    failures = tuple(BatchFailure(entry.name, 500, "why") for entry in batches(2000))
    result = FlushResult(Path("/spool"), uploaded=3, failures=failures, warnings=("x" * 200,) * 500)
    values = (
        Inventory(Path("/spool"), batches(2000)),
        read_traces(tmp_path / "spool"),
        result,
        FlushSpoolsResult((result,) * 500),
        ClearResult(Path("/spool"), 1, 2, tuple((failure.name, "why") for failure in failures)),
    )
    for value in values:
        assert repr(value).startswith(f"{type(value).__name__}(")
        assert len(repr(value)) < 5000
        assert "..." in repr(value)
    assert "directory=PosixPath('/spool'), uploaded=3, failed=0, " in repr(result)
    assert repr(FlushResult(Path("/spool"))).endswith("planned=(), snapshots=None)")
