"""The settings as a table and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from cirron_spool.cli.render import cell
from cirron_spool.settings.description import Description
from cirron_spool.settings.origin import Origin
from cirron_spool.text import display_width, printable

_HEADS = ("Setting", "Value", "Origin", "Overrides")
# Shortest column on a narrow terminal. If that is not enough, the last columns are left out.
_NARROWEST = 8
# Keys of the SDK's file with a setting of another name. They are shown only if they are set.
_ALIASES = ("api_endpoint", "api_key")


def lines(settings: Sequence[Description], json_path: Path | None, columns: int = 0) -> Iterator[str]:
    """The settings as text: the file, and a table. Without ``columns``, nothing is cut or wrapped.

    On a terminal that is too narrow for the table, the overridden values are lines below it.
    """
    place = printable(str(json_path)) if json_path is not None else "none: there is no home directory"
    yield f"Configuration: {place}"
    rows = [_row(setting) for setting in settings if _is_shown(setting)]
    overriding = [row for row in rows if row[-1]]
    fits = not columns or sum(_widths(rows, _HEADS)) <= _room(columns, len(_HEADS))
    if overriding and fits:
        yield from _table(rows, _HEADS, columns)
        return
    yield from _table(rows, _HEADS[:-1], columns)
    for key, _, _, overrides in overriding:
        yield f"{key} overrides {overrides}"


def setting_json(setting: Description) -> dict[str, object]:
    """A setting as JSON. A secret is masked."""
    return {
        "key": setting.key,
        "value": setting.shown(setting.value),
        "origin": _origin_json(setting.origin),
        "overridden": [
            {"value": setting.shown(lower.value), "origin": _origin_json(lower.origin)}
            for lower in setting.overridden
        ],
        "problem": setting.problem or None,
    }


def _origin_json(origin: Origin) -> dict[str, object]:
    return {
        "kind": origin.kind,
        "name": origin.name or None,
        "file": str(origin.file) if origin.file is not None else None,
    }


def _is_shown(setting: Description) -> bool:
    return setting.value is not None or bool(setting.problem) or setting.key not in _ALIASES


def _row(setting: Description) -> tuple[str, ...]:
    if setting.value is None:
        return setting.key, "(unknown)" if setting.problem else "(not set)", "", ""
    value = setting.text(setting.value)
    overrides = ", ".join(
        f"{_place(lower.origin, setting.key)} ({setting.text(lower.value)})" for lower in setting.overridden
    )
    mark = " (!)" if setting.problem else ""
    return setting.key, value + mark, _place(setting.origin, setting.key), overrides


def _place(origin: Origin, key: str) -> str:
    """The file, variable or ``default`` of a value. The name of its key is added if it differs from ``key``."""
    if origin.kind == "file" and origin.file is not None:
        file = origin.file.name
        return file if origin.name == key else f"{origin.name} in {file}"
    if origin.kind == "keyring":
        return "keyring" if origin.name == key else f"{origin.name} in keyring"
    return printable(origin.name) or origin.kind


def _table(rows: Sequence[Sequence[str]], heads: Sequence[str], columns: int) -> Iterator[str]:
    widths = _widths(rows, heads)
    if columns:
        while len(widths) > 1 and sum(min(width, _NARROWEST) for width in widths) > _room(
            columns, len(widths)
        ):
            widths.pop()
        while sum(widths) > _room(columns, len(widths)) and max(widths) > 1:
            widths[widths.index(max(widths))] -= 1
    yield _rule("┌", "┬", "┐", widths)
    yield _line(heads, widths)
    yield _rule("├", "┼", "┤", widths)
    yield from (_line(row, widths) for row in rows)
    yield _rule("└", "┴", "┘", widths)


def _widths(rows: Sequence[Sequence[str]], heads: Sequence[str]) -> list[int]:
    return [
        max(len(head), *(display_width(row[column]) for row in rows)) for column, head in enumerate(heads)
    ]


def _room(columns: int, cells: int) -> int:
    """The characters of a line without its frame."""
    return columns - 3 * cells - 1


def _rule(left: str, middle: str, right: str, widths: Sequence[int]) -> str:
    return left + middle.join("─" * (width + 2) for width in widths) + right


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return f"│ {' │ '.join(map(cell, cells, widths))} │"
