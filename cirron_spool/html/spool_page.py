"""A spool as one HTML page: figures, bytes over time, and batches. The page has no script and loads nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

from cirron_spool.html.style import STYLE, page_head
from cirron_spool.text import human_size, printable

# Most rows of the table, so that the page stays fast.
MOST_ROWS = 1000

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

_STYLE = f"""{STYLE}
svg {{ display: block; width: 100%; height: 8rem; fill: var(--accent); }}
td:nth-child(2), th:nth-child(2) {{ text-align: right; }}
td:last-child {{ font-family: ui-monospace, monospace; font-size: .875rem; }}
"""


class Row(NamedTuple):
    """A batch: its time as ISO 8601, its size in bytes, its name."""

    time: str
    size: int
    name: str


def spool_page(
    directory: str,
    figures: Sequence[tuple[str, str]],
    bytes_over_time: Sequence[int],
    rows: Sequence[Row],
    *,
    batches: int,
    written: str,
) -> Iterator[str]:
    """The page, in parts.

    ``figures`` are names with values. ``rows`` are the newest of ``batches``, oldest first. ``written`` is the time of
    the page.
    """
    place = printable(directory)
    yield page_head(f"Spool {place}", _STYLE, _POLICY)
    yield f"""<h1>Spool</h1>
<p>{escape(place)}, as of {escape(written)}</p>
"""
    yield "<dl>\n"
    for name, value in figures:
        yield f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>\n"
    yield "</dl>\n"
    if rows:
        yield from _chart(bytes_over_time, rows[-1].time)
        yield from _table(rows, batches)
    else:
        yield "<p>No spool files found.</p>\n"
    yield "</main>\n</body>\n</html>\n"


def _chart(values: Sequence[int], newest: str) -> Iterator[str]:
    """A bar for each part of the time range."""
    most = max(values, default=0) or 1
    label = f"{len(values)} equal parts of the time up to {newest}; the largest has {human_size(most)}"
    yield '<h2>Bytes over time</h2>\n<div class="wide">\n'
    yield f'<svg viewBox="0 0 {len(values)} 100" preserveAspectRatio="none" role="img" aria-label="{label}">\n'
    for number, value in enumerate(values):
        height = max(value * 100 / most, 1 if value else 0)
        yield (
            f'<rect x="{number + 0.05:g}" y="{100 - height:.2f}" width="0.9" height="{height:.2f}">'
            f"<title>{human_size(value)}</title></rect>\n"
        )
    yield f'</svg>\n<div class="ends"><span>oldest</span><span>up to {human_size(most)}</span>'
    yield "<span>newest</span></div>\n</div>\n"


def _table(rows: Sequence[Row], batches: int) -> Iterator[str]:
    yield "<h2>Batches</h2>\n"
    if len(rows) < batches:
        yield f"<p>The newest {len(rows):,} of {batches:,}.</p>\n"
    yield '<div class="wide" tabindex="0" role="region" aria-label="Batches">\n<table>\n<thead><tr>'
    yield '<th scope="col">Timestamp</th><th scope="col">Size</th><th scope="col">File</th></tr></thead>\n<tbody>\n'
    for row in rows:
        yield f"<tr><td>{row.time}</td><td>{human_size(row.size)}</td><td>{escape(row.name)}</td></tr>\n"
    yield "</tbody>\n</table>\n</div>\n"
