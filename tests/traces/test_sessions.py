"""Records of many batches become sessions and trees, whatever their order, gaps and circles."""

from __future__ import annotations

import gzip
import random
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from cirron_spool.errors import SpoolError
from cirron_spool.traces.forest import NOT_THERE
from cirron_spool.traces.sources import BatchText, UnreadableBatch, read_batches
from cirron_spool.traces.statistics import summarize
from cirron_spool.traces.trace import Trace, read_trace
from cirron_spool.traces.tree import Folding, Node
from cirron_spool.traces.view import view
from support.runs import lay, mark, span, traced_run
from support.spools import sdk_batches

ROOT = "0" * 31 + "a"


def facts(path: Path) -> list[tuple[str, int, int, int, bool]]:
    """Of each session: identifier, spans, marks, orphans, live."""
    with read_trace(path, _fail) as trace:
        return [(each.id, each.spans, each.marks, each.orphans, each.live) for each in trace.sessions]


def _fail(line: str) -> None:
    raise AssertionError(line)


def outline(trace: Trace, folding: Folding = Folding(), session: int = 0) -> list[str]:  # noqa: B008
    """The nodes of a tree, one line each: dots for the level, name, and how many where it is a fold."""
    (seen,) = view(trace, [session], folding)
    lines: list[str] = []

    def walk(node: Node) -> None:
        fold = f" {node.fold} {len(node.spans)}" if node.fold else ""
        lines.append("." * node.level + node.name + fold + (f" +{node.hidden}" if node.hidden else ""))
        for child in node.children:
            walk(child)

    walk(seen.tree.root)
    return lines


def shown(path: Path, folding: Folding = Folding()) -> list[str]:  # noqa: B008
    with read_trace(path, _fail) as trace:
        return outline(trace, folding)


def test_spans_are_put_together_whatever_their_batches_and_their_order(spool: Path) -> None:
    spans = [span(ROOT, None, "cirron.session", 0, 100)]
    spans += [span(f"e{number}", ROOT, "epoch", number, 50) for number in range(3)]
    spans += [span(f"s{number}", f"e{number % 3}", "step", number, 40) for number in range(9)]
    marks = [mark(f"m{number}", f"s{number}", "loss", number, number) for number in range(9)]
    records = [*(("spans", each) for each in spans), *(("marks", each) for each in marks)]
    random.Random(1).shuffle(records)
    for number, (kind, record) in enumerate(records):
        lay(spool, number, {kind: [record]})
    assert facts(spool) == [(ROOT, 13, 9, 0, False)]
    assert shown(spool) == ["cirron.session", *(["." + "epoch", *["..step"] * 3] * 3)]


def test_a_closed_span_stays_before_an_open_one_and_duplicates_count_once(spool: Path) -> None:
    closed, opened = span("e", ROOT, "epoch", 1, 9), span("e", ROOT, "epoch", 1, None)
    root = span(ROOT, None, "cirron.session", 0, None)
    once = mark("m", "e", "loss", 1.0, 2)
    for number, spans in enumerate([[opened, root], [closed], [opened], [closed]]):
        lay(spool, number, {"spans": spans, "marks": [once]})
    with read_trace(spool, _fail) as trace:
        (session,) = trace.sessions
        assert (session.spans, session.open_spans, session.marks, session.live) == (2, 1, 1, True)
        assert trace.loaded.duplicates == 6
        (seen,) = view(trace, [0], Folding())
        assert seen.tree.nodes[1].times.total == 8


def test_orphans_are_said_and_stand_below_a_stand_in(spool: Path) -> None:
    gone = span("s2", "gone", "step", 5, 6)
    lay(
        spool,
        0,
        {"spans": [span("s1", "gone", "step", 3, 4), gone], "marks": [mark("m", "gone", "loss", 1, 5)]},
    )
    assert facts(spool) == [("gone", 2, 1, 2, True)]  # its parent may be the session itself
    assert shown(spool) == ["cirron.session", ".step", ".step"]
    lay(spool, 1, {"spans": [span(ROOT, None, "cirron.session", 0, 9)]})
    assert facts(spool) == [(ROOT, 3, 1, 2, False)]
    assert shown(spool) == ["cirron.session", "." + NOT_THERE, "..step", "..step"]
    # A later run with the same pid is another session, and so is another rank.
    lay(spool, 2, {"spans": [span("s3", "other", "step", 20, 21), span("s4", None, "step", 5, 6, rank=1)]})
    assert [each[0] for each in facts(spool)] == [ROOT, "s4", "other"]


def test_circles_end_and_are_counted(spool: Path) -> None:
    circle = [span(f"c{number}", f"c{(number + 1) % 3}", "circle", number, 9) for number in range(3)]
    own = span("own", "own", "self", 5, 6)
    below = span("below", "c1", "below", 6, 7)
    lay(spool, 0, {"spans": [span(ROOT, None, "cirron.session", 0, 99), below, *circle, own]})
    with read_trace(spool, _fail) as trace:
        assert trace.found.cycles == 4
        assert [session.spans for session in trace.sessions] == [6]
        # Each circle is cut above its first span.
        assert outline(trace) == ["cirron.session", ".circle", "..circle", "...circle", "....below", ".self"]


def test_a_tree_of_thousands_of_levels_is_folded_at_the_hundredth(spool: Path) -> None:
    deep = 20_000
    spans = [span("0", None, "cirron.session", 0, 9)]
    spans += [span(str(number), str(number - 1), "down", 0, 9) for number in range(1, deep)]
    lay(spool, 0, {"spans": spans})
    lines = shown(spool)
    assert len(lines) == 102
    assert lines[-1] == "." * 101 + f"down depth 1 +{deep - 102}"


@pytest.mark.parametrize(
    ("folding", "lines"),
    [
        (
            Folding(),
            ["S", ".epoch", "..step", "...f", "..step", "...f", "..step", "...f", ".epoch", "..eval"],
        ),
        (Folding(siblings=2), ["S", ".epoch", "..step siblings 3", "...f siblings 3", ".epoch", "..eval"]),
        (Folding(siblings=1), ["S", ".epoch siblings 2", "..step siblings 3", "...f siblings 3", "..eval"]),
        (Folding(depth=0), ["S", ".epoch depth 2 +7"]),
        (Folding(depth=1), ["S", ".epoch", "..step depth 3 +3", ".epoch", "..eval depth 1"]),
        (
            Folding(min_wall_ns=15),
            ["S", ".epoch", "..step minWall 2 +2", "..step", "...f minWall 1", ".epoch", "..eval"],
        ),
        (Folding(name="step"), ["S", ".epoch", "..step", "...f", "..step", "...f", "..step", "...f"]),
        (Folding(name="ev*"), ["S", ".epoch", "..eval"]),
        (Folding(name="none"), ["S"]),
        (Folding(nodes=4), ["S", ".epoch +6", ".epoch", "..eval"]),
    ],
    ids=str,
)
def test_what_is_folded(spool: Path, folding: Folding, lines: list[str]) -> None:
    steps = [span(f"s{number}", "e0", "step", 10 * number, (9, 23, 45)[number]) for number in range(3)]
    inner = [span(f"f{number}", f"s{number}", "f", 10 * number, 10 * number + 5) for number in range(3)]
    epochs = [span("e0", ROOT, "epoch", 0, 50), span("e1", ROOT, "epoch", 60, 199)]
    other = [span(ROOT, None, "cirron.session", 0, 200), span("v", "e1", "eval", 70, 90)]
    lay(spool, 0, {"spans": [*steps, *inner, *epochs, *other]})
    assert shown(spool, folding) == ["cirron.session", *lines[1:]]
    with read_trace(spool, _fail) as trace:
        (seen,) = view(trace, [0], folding)
        tree = seen.tree
        assert tree.shown + tree.folded + tree.hidden + tree.left_out == 10


def test_the_statistics_of_durations() -> None:
    assert summarize([]) == (0, 0, 0, 0, 0, 0)
    assert summarize([5]) == (1, 5, 5, 5, 5, 5)
    assert summarize([4, 1, 3, 2]) == (4, 10, 2, 4, 1, 4)
    assert summarize(range(1, 101)) == (100, 5050, 50, 95, 1, 100)


def test_a_spool_reads_the_same_as_an_archive_of_any_kind(tmp_path: Path) -> None:
    spool = traced_run(tmp_path / "run/.cirron")
    killed = traced_run(tmp_path / "two/.cirron", killed=True)
    lay(tmp_path / "two/.cirron/quarantine", 1, b"rejected")
    both = facts(spool) + facts(killed)
    assert [(len(each[0]), *each[1:]) for each in both] == [(32, 52, 18, 0, False), (32, 51, 18, 3, True)]
    for packed in (tmp_path / "packed.tar.gz", tmp_path / "packed.tar"):
        with tarfile.open(packed, "w:gz" if packed.suffix == ".gz" else "w") as archive:
            archive.add(tmp_path / "run", "run")
            archive.add(tmp_path / "two", "two")
        assert facts(packed) == both
    with zipfile.ZipFile(tmp_path / "packed.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        for path in sorted(tmp_path.glob("*/.cirron/*/*.json")):
            zipped.write(path, path.relative_to(tmp_path))
    assert facts(tmp_path / "packed.zip") == both
    # A folder of runs, whose files somebody has packed one by one.
    archive_folder = tmp_path / "archive"
    for run in ("run", "two"):
        shutil.copytree(tmp_path / run, archive_folder / run)
    for path in archive_folder.glob("*/.cirron/spool/*.json"):
        path.with_suffix(".json.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert facts(archive_folder) == both


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no archive")
    (tmp_path / "cut.tar.gz").write_bytes(gzip.compress(b"x" * 4096)[:20])
    for name in ("notes.txt", "cut.tar.gz"):
        with pytest.raises(SpoolError, match=name):
            list(read_batches(tmp_path / name))


def test_a_broken_archive_shows_what_can_be_read(tmp_path: Path) -> None:
    batches = [
        lay(tmp_path / "spool", number, {"marks": [mark(f"m{number}", "r", "x" * 3000, 1.0, number)]})
        for number in range(3)
    ]
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as zipped:
        for path in batches:
            zipped.write(path, path.name)
        second = zipped.getinfo(batches[1].name).header_offset
    data = bytearray((tmp_path / "some.zip").read_bytes())
    data[second + 500] ^= 0xFF
    (tmp_path / "some.zip").write_bytes(data)
    found = list(read_batches(tmp_path / "some.zip"))
    assert [type(each) for each in found] == [BatchText, UnreadableBatch, BatchText]
    assert found[1] == UnreadableBatch(batches[1].name, f"Bad CRC-32 for file {batches[1].name!r}")

    with tarfile.open(tmp_path / "cut.tar", "w") as archive:
        for path in batches:
            archive.add(path, path.name)
    (tmp_path / "cut.tar").write_bytes((tmp_path / "cut.tar").read_bytes()[:6000])
    first, rest = read_batches(tmp_path / "cut.tar")
    assert (first.name, type(rest), rest.name) == (batches[0].name, UnreadableBatch, "The rest of cut.tar")


def test_batches_that_a_flush_deletes_meanwhile_are_passed_by(spool: Path) -> None:
    sealed = sdk_batches(spool, 4)
    reading = read_batches(spool)
    first = next(reading)
    for batch in sealed[:3]:
        (spool / batch.name).unlink()
    rest = list(reading)
    assert [each.name for each in (first, *rest)] == [sealed[0].name, sealed[3].name]
    assert all(isinstance(each, BatchText) for each in rest)
