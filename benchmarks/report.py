"""Figures as text for a person and as JSON for a program."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import environment
from benchmarks.errors import BenchmarkError
from benchmarks.goals import Goal
from benchmarks.measure import Cell, Results

MB = 1e6
SCHEMA = 1
_FIGURES = ("seconds", "cpu_seconds", "peak_bytes", "sent_bytes", "first_request_ms", "verified_ms")


def table(rows: Sequence[Sequence[str]], indent: str = "  ") -> str:
    """Rows of cells in columns: the first column to the left, the others to the right; the first row is the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        first, *rest = (
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append((indent + "  ".join([first, *rest])).rstrip())
    return "\n".join(lines)


def seconds(value: float) -> str:
    """Three digits that mean something: ``0.0071``, ``0.271``, ``21.0``."""
    return f"{value:.4f}" if value < 0.1 else f"{value:.3f}" if value < 10 else f"{value:.1f}"


def size(count: float) -> str:
    """Bytes in decimal units, as a link's speed has them: ``685.3 KB``, ``61.4 MB``."""
    return f"{count / MB:.1f} MB" if count >= MB else f"{count / 1e3:.1f} KB"


def with_spread(median: float, spread: tuple[float, float]) -> str:
    """``0.271 (0.265..0.290)``."""
    return f"{seconds(median)} ({seconds(spread[0])}..{seconds(spread[1])})"


def title(cell: Cell) -> str:
    """What a cell measured, as a line."""
    network = cell.network
    delay = f"{network.latency_ms:g} ms a request" if network.latency_ms else "no latency"
    line = f"{network.bandwidth / MB:g} MB/s" if network.bandwidth else "no bandwidth limit"
    amount = f"{size(cell.json_bytes)} of JSON"
    count = f"{cell.batches:,} batch{'' if cell.batches == 1 else 'es'}"
    sink = "the receiver" if cell.sink == "receiver" else "a sink that only answers"
    return f"{cell.spool}: {count}, {amount}, on {cell.file_system}; {delay}, {line}, {sink}"


def cell_text(cell: Cell) -> str:
    """A cell as a table: medians of interleaved runs, with the smallest and the largest."""
    rows = [["contender", "seconds (min..max)", "x floor", "MB/s", "CPU s", "peak MB", "sent MB", "first ms"]]
    rows += [_row(cell, each) for each in cell.results]
    text = f"{title(cell)}\n{table(rows)}"
    for each in cell.results:
        if each.error:
            text += f"\n  {each.contender.name}: no figure: {each.error}"
    peers = _peers(cell)
    return "\n".join([text, *filter(None, [peers, _beginning(cell)])])


def _row(cell: Cell, results: Results) -> list[str]:
    median, spread = results.median("seconds"), results.spread("seconds")
    if median is None or spread is None:
        return [results.contender.name, *["-"] * 7]
    floor = cell.of("floor")
    lowest = floor.median("seconds") if floor else None
    first = results.median("first_request_ms")
    return [
        results.contender.name,
        with_spread(median, spread),
        f"{median / lowest:.3f}" if lowest else "-",
        f"{cell.json_bytes / MB / median:.1f}",
        f"{results.median('cpu_seconds') or 0:.2f}",
        f"{(results.median('peak_bytes') or 0) / MB:.1f}",
        f"{(results.median('sent_bytes') or 0) / MB:.2f}",
        "-" if first is None else f"{first:.1f}",
    ]


def ratios(cell: Cell) -> dict[str, dict[str, float]]:
    """Each contender of ours beside each other contender: how many times as fast, and of its processor time."""
    found: dict[str, dict[str, float]] = {}
    for mine in cell.results:
        if mine.contender.program != "ours" or not mine.runs:
            continue
        for other in cell.results:
            if other is mine or not other.runs:
                continue
            fast, cpu = mine.median("seconds"), mine.median("cpu_seconds")
            slow, burnt = other.median("seconds"), other.median("cpu_seconds")
            if fast and slow and cpu is not None and burnt:
                found[f"{mine.contender.name}/{other.contender.name}"] = {
                    "seconds": fast / slow,
                    "times_as_fast": slow / fast,
                    "cpu_seconds": cpu / burnt,
                }
    return found


def _peers(cell: Cell) -> str:
    parts = []
    for pair, ratio in ratios(cell).items():
        mine, _, other = pair.partition("/")
        if mine in ("thread", "inline") and other == "node":
            parts.append(
                f"{mine} {ratio['times_as_fast']:.1f} x {other} ({ratio['cpu_seconds']:.2f} of its CPU seconds)"
            )
    return f"  as fast as Node: {', '.join(parts)}" if parts else ""


def _beginning(cell: Cell) -> str:
    ours = cell.of("thread")
    first = ours.median("first_request_ms") if ours else None
    verified = ours.median("verified_ms") if ours else None
    if first is None or verified is None:
        return ""
    answered = f"its token's verification was answered after {verified:.1f} ms"
    return f"  thread begins the first batch after {first:.1f} ms; {answered}"


def goals_text(goals: Sequence[Goal]) -> str:
    """Goals beside what was reached."""
    if not goals:
        return ""
    rows = [["goal", "limit", "measured", ""]]
    for goal in goals:
        sign = "<=" if goal.at_most else ">="
        unit = f" {goal.unit}"
        value = f"{goal.value:.3f}" if goal.value < 10 else f"{goal.value:.1f}"
        rows.append(
            [goal.name, f"{sign} {goal.limit:g}{unit}", value, "reached" if goal.reached else "not reached"]
        )
    return table(rows)


def cell_json(cell: Cell) -> dict[str, Any]:
    """A cell with every run."""
    return {
        "spool": cell.spool,
        "file_system": cell.file_system,
        "latency_ms": cell.network.latency_ms,
        "bandwidth": cell.network.bandwidth,
        "sink": cell.sink,
        "batches": cell.batches,
        "json_bytes": cell.json_bytes,
        "contenders": [_results_json(cell, each) for each in cell.results],
        "ratios": ratios(cell),
    }


def _results_json(cell: Cell, results: Results) -> dict[str, Any]:
    median = results.median("seconds")
    return {
        "name": results.contender.name,
        "options": results.contender.options,
        "error": results.error,
        "median": {figure: results.median(figure) for figure in _FIGURES},
        "spread": {figure: results.spread(figure) for figure in _FIGURES},
        "json_mb_per_second": cell.json_bytes / MB / median if median else None,
        "runs": [asdict(run) for run in results.runs],
    }


def document(command: str, options: dict[str, Any], goals: Sequence[Goal], **body: Any) -> dict[str, Any]:
    """What ``--json`` holds, of any command: machine, options, goals, and the command's own figures."""
    return {
        "schema": SCHEMA,
        "command": command,
        "machine": environment.facts(),
        "options": options,
        **body,
        "goals": [goal.as_json() for goal in goals],
    }


def write_json(target: str, content: dict[str, Any]) -> None:
    """Write ``content`` to the file ``target``, or to stdout for ``-``."""
    text = json.dumps(content, indent=2) + "\n"
    if target == "-":
        sys.stdout.write(text)
        return
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise BenchmarkError(f"Cannot write {target}: {error.strerror}") from error
