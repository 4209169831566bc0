"""Figures as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.compare import MB, Cell, Results

Column = tuple[str, Callable[[Results], str]]


def table(rows: Sequence[Sequence[str]], indent: str = "  ") -> str:
    """Rows in columns, the first column left, the others right; the first row is the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append((indent + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def seconds(value: float) -> str:
    """Seconds with three significant digits."""
    return f"{value:.4f}" if value < 0.1 else f"{value:.3f}" if value < 10 else f"{value:.1f}"


def seconds_with_spread(results: Results) -> str:
    """``0.271 (0.265..0.290)``: median, smallest, largest."""
    low, high = results.spread("seconds")
    return f"{seconds(results.median('seconds'))} ({seconds(low)}..{seconds(high)})"


def ratio(results: Results, base: Results | None, figure: str = "seconds") -> float | None:
    """The median of ``figure`` as a multiple of that of ``base``; None without a base."""
    lowest = base.median(figure) if base is not None else 0
    return results.median(figure) / lowest if lowest else None


def title(cell: Cell) -> str:
    """The spool and the network of a cell."""
    spool, network = cell.spool, cell.network
    size = spool.json_bytes
    amount = f"{size / MB:.1f} MB" if size >= MB else f"{size / 1e3:.1f} KB"
    count = f"{len(spool.names):,} batch{'' if len(spool.names) == 1 else 'es'}"
    link = f", {network.bandwidth / MB:g} MB/s" if network.bandwidth else ""
    delay = f"{network.latency_ms:g} ms a request{link}"
    return f"\n{spool.name}: {count}, {amount} of JSON, on {cell.file_system}; {delay}"


def cell_text(cell: Cell, columns: Sequence[Column], contender: str = "contender") -> str:
    """A row for each contender with runs, a line for each error."""
    rows = [[contender, *(name for name, _ in columns)]]
    rows += [[each.contender.name, *(show(each) for _, show in columns)] for each in cell.measured()]
    errors = [f"\n  {each.contender.name}: no figure: {each.error}" for each in cell.results if each.error]
    return f"{title(cell)}\n{table(rows)}{''.join(errors)}"


def ratio_column(name: str, base: Results | None) -> Column:
    """Seconds as a multiple of those of ``base``."""
    return name, lambda each: "-" if (value := ratio(each, base)) is None else f"{value:.3f}"


SECONDS: Column = ("seconds (min..max)", seconds_with_spread)
CPU: Column = ("CPU s", lambda each: f"{each.median('cpu_seconds'):.2f}")
PEAK: Column = ("peak MB", lambda each: f"{each.median('peak_bytes') / MB:.1f}")
SENT: Column = ("sent MB", lambda each: f"{each.median('sent_bytes') / MB:.2f}")
