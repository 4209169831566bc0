"""Options of several commands, and the types of their values."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from benchmarks import spools
from benchmarks.errors import BenchmarkError

_SUFFIXES = {"k": 1e3, "m": 1e6, "g": 1e9}

T = TypeVar("T")


def byte_rate(text: str) -> float:
    """Bytes a second: ``800000``, ``800k``, ``10M``, ``1G`` (decimal)."""
    number = text.lower()
    factor = _SUFFIXES.get(number[-1:], 1.0)
    value = float(number[:-1] if factor > 1 else number) * factor
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("must be more than 0")
    return value


def positive(text: str) -> int:
    """A whole number from 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


def milliseconds(text: str) -> float:
    """A number from 0 to an hour."""
    value = float(text)
    if not 0 <= value < 3_600_000:
        raise argparse.ArgumentTypeError("must be 0 or more, and less than an hour")
    return value


def several(of: Callable[[str], T]) -> Callable[[str], list[T]]:
    """Values with commas between them."""

    def parse(text: str) -> list[T]:
        return [of(part.strip()) for part in text.split(",") if part.strip()]

    parse.__name__ = f"{of.__name__} list"
    return parse


words = several(str)
numbers = several(positive)


def add_where(parser: argparse.ArgumentParser) -> None:
    """``--where``."""
    parser.add_argument(
        "--where",
        default="tmpfs",
        metavar="PLACE",
        help="tmpfs, disk (the folder for temporary files), or a folder (default: tmpfs)",
    )


def add_common(
    parser: argparse.ArgumentParser, *, spool: str = "", latency: str = "", repeat: int = 5, batches: str = ""
) -> None:
    """``--where`` and ``--repeat``. With defaults for them, also the options of spools and of the network."""
    add_where(parser)
    parser.add_argument(
        "--repeat", type=positive, default=repeat, metavar="N", help=f"runs each (default: {repeat})"
    )
    if spool:
        parser.add_argument(
            "--spool",
            type=words,
            default=spool,
            metavar="NAMES",
            help=f"{', '.join(spools.SHAPES)}, or a folder, which is copied; several with commas (default: {spool})",
        )
        parser.add_argument(
            "--batches",
            type=numbers,
            default=batches or None,
            metavar="N",
            help="batches of a generated spool; several with commas, one for each of --spool",
        )
    if latency:
        parser.add_argument(
            "--latency-ms",
            type=several(milliseconds),
            default=latency,
            metavar="MS",
            help=f"delay of each answer; several with commas (default: {latency})",
        )
        parser.add_argument(
            "--bandwidth",
            type=byte_rate,
            metavar="BYTES",
            help="bytes a second of the link: 800k, 10M (default: no limit)",
        )


def choose(names: Sequence[str], known: Collection[str], noun: str) -> Sequence[str]:
    """``names``, checked against ``known``."""
    for name in names:
        if name not in known:
            raise BenchmarkError(f"No such {noun}: {name} (choose from {', '.join(known)})")
    if not names:
        raise BenchmarkError(f"No {noun} to run.")
    return names
