"""The comparison as a picture: one panel a setting, one bar a contender, a line where the floor is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.measure import Cell
from benchmarks.report import MB, seconds, size

OURS, OTHERS, FLOOR, INK = "#1f6feb", "#b9c0ca", "#57606a", "#24292f"
_LABELS = {
    "floor": "floor",
    "ours": "cirron-spool",
    "naive": "naive Python",
    "node": "Node",
    "sdk": "SDK's client",
}
_MOST_COLUMNS = 3
# Where the slowest takes so many times as long as the fastest, only a logarithmic scale shows both.
_LOG_FROM = 8


def require() -> None:
    """Say now, not after an hour of measuring, that a plot cannot be drawn."""
    try:
        import matplotlib  # noqa: F401  # only whether it is there
    except ImportError:
        raise BenchmarkError("--plot needs matplotlib: pip install matplotlib") from None


def draw(cells: Sequence[Cell], target: str) -> None:
    """Draw ``cells`` into the PNG file ``target``."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [cell for cell in cells if any(each.runs for each in cell.results)]
    if not shown:
        raise BenchmarkError("There is nothing to plot: no contender has a figure.")
    columns = min(_MOST_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    bars = max(len(cell.results) for cell in shown)
    inches = (5.2 * columns + 0.6, (1.15 + 0.42 * bars + 0.15) * rows + 0.7)
    figure, axes = pyplot.subplots(rows, columns, figsize=inches, squeeze=False, layout="constrained")
    flat = list(axes.flat)
    for axis, cell in zip(flat, shown, strict=False):
        _panel(axis, cell)
    for axis in flat[len(shown) :]:
        axis.axis("off")
    figure.suptitle(
        "Seconds to deliver a spool: less is better (whiskers: fastest and slowest run)", color=INK
    )
    try:
        figure.savefig(target, dpi=150)
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"Cannot write {target}: {error}") from error
    finally:
        pyplot.close(figure)


def _panel(axis: Any, cell: Cell) -> None:
    from matplotlib import ticker

    results = [each for each in cell.results if each.runs]
    names = [_label(each.contender.name) for each in results]
    medians = [each.median("seconds") or 0.0 for each in results]
    spreads = [each.spread("seconds") or (0.0, 0.0) for each in results]
    colours = [
        FLOOR if each.contender.name == "floor" else OURS if each.contender.program == "ours" else OTHERS
        for each in results
    ]
    below = [middle - low for middle, (low, _) in zip(medians, spreads, strict=True)]
    above = [high - middle for middle, (_, high) in zip(medians, spreads, strict=True)]
    places = range(len(results))
    whiskers = {"ecolor": INK, "elinewidth": 1, "capsize": 2.5}
    axis.barh(places, medians, color=colours, height=0.66, xerr=[below, above], error_kw=whiskers)
    axis.set_yticks(list(places), names)
    axis.invert_yaxis()
    longest = max(high for _, high in spreads)
    shortest = min(low for low, _ in spreads)
    # Room to the right of the longest bar for its label.
    if longest > shortest * _LOG_FROM:
        axis.set_xscale("log")
        axis.set_xlim(shortest / 3, longest * (longest / shortest * 3) ** 0.4)
        axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axis.set_xlim(0, longest * 1.4)
    floor = cell.of("floor")
    lowest = floor.median("seconds") if floor else None
    if lowest:
        axis.axvline(lowest, color=FLOOR, linewidth=1, linestyle="--", zorder=0)
    for place, middle, (_, high), each in zip(places, medians, spreads, results, strict=True):
        times = f"  {middle / lowest:.2f} x" if lowest and each.contender.name != "floor" else ""
        axis.annotate(
            f"{seconds(middle)} s{times}",
            (high, place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=INK,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},  # before the floor's line
        )
    axis.set_title(_title(cell), fontsize=10, loc="left", color=INK)
    axis.set_xlabel("seconds", fontsize=8, color=INK)
    axis.tick_params(axis="x", labelsize=8)
    axis.tick_params(axis="x", which="minor", labelbottom=False)
    axis.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def _label(name: str) -> str:
    program, comma, options = name.partition(",")
    return _LABELS.get(program, program) + comma + options


def _title(cell: Cell) -> str:
    network = cell.network
    delay = f"{network.latency_ms:g} ms a request" if network.latency_ms else "no latency"
    line = f", {network.bandwidth / MB:g} MB/s" if network.bandwidth else ""
    count = f"{cell.batches:,} batch{'' if cell.batches == 1 else 'es'}"
    return f"{cell.spool} ({count}, {size(cell.json_bytes)}), {delay}{line}\n{cell.file_system}"
