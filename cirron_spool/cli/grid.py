"""A table that fits the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cirron_spool.cli.render import cell
from cirron_spool.text import display_width


def grid(
    rows: Sequence[Sequence[str]], heads: Sequence[str], sides: str, columns: int = 0, *, shortest: int = 8
) -> Iterator[str]:
    """Rows in a box. ``sides`` aligns each column: ``<`` left, ``>`` right. A ``width`` of 0 means no limit.

    A table wider than ``width`` gets narrower in three steps. Its columns shrink to ``shortest`` characters, the first
    column first. Then the frame is left out. Then columns from the right are left out.
    """
    widths = [
        max(len(head), *(display_width(row[column]) for row in rows)) for column, head in enumerate(heads)
    ]
    framed = True
    if columns:
        for column, side in enumerate(sides):
            excess = _width(widths, framed=True) - columns
            if side == "<" and excess > 0:
                widths[column] = max(shortest, widths[column] - excess)
        framed = _width(widths, framed=True) <= columns
        while len(widths) > 1 and not framed and _width(widths, framed=False) > columns:
            widths.pop()
    shown = len(widths)
    rules = ["─" * (width + 2) for width in widths]
    if framed:
        yield f"┌{'┬'.join(rules)}┐"
    yield _row(heads[:shown], widths, sides, framed=framed)
    if framed:
        yield f"├{'┼'.join(rules)}┤"
    for row in rows:
        yield _row(row[:shown], widths, sides, framed=framed)
    if framed:
        yield f"└{'┴'.join(rules)}┘"


def _width(widths: Sequence[int], *, framed: bool) -> int:
    return sum(widths) + (3 * len(widths) + 1 if framed else 2 * (len(widths) - 1))


def _row(cells: Sequence[str], widths: Sequence[int], sides: str, *, framed: bool) -> str:
    shown = map(cell, cells, widths, sides)
    return f"│ {' │ '.join(shown)} │" if framed else "  ".join(shown).rstrip()
