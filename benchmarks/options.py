"""Options that several commands share, and what their values may be."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence

from benchmarks.errors import BenchmarkError

_SUFFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}


def amount(text: str) -> float:
    """A number of bytes: ``800000``, ``800k``, ``10M``, ``1G`` (decimal)."""
    number = text.strip().lower().removesuffix("b/s").removesuffix("b")
    suffix = number[-1:] if number[-1:] in "kmg" else ""
    try:
        value = float(number.removesuffix(suffix)) * _SUFFIXES[suffix]
    except ValueError:
        raise argparse.ArgumentTypeError(f"not a number of bytes: {text!r}") from None
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("must be more than 0")
    return value


def positive(text: str) -> int:
    """A whole number from 1."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not a whole number: {text!r}") from None
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


def kilobytes(text: str) -> float:
    """A size in KB of 1000 bytes."""
    return amount(text)


def milliseconds(text: str) -> list[float]:
    """Numbers from 0, with commas between them."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"not milliseconds: {text!r}") from None
    if not all(0 <= value < 3_600_000 for value in values):
        raise argparse.ArgumentTypeError("must be 0 or more, and less than an hour")
    return values


def words(text: str) -> list[str]:
    """Words with commas between them."""
    return [part.strip() for part in text.split(",") if part.strip()]


def numbers(text: str) -> list[int]:
    """Whole numbers from 1 with commas between them."""
    return [positive(part) for part in text.split(",")]


def amounts(text: str) -> list[float]:
    """Numbers of bytes with commas between them."""
    return [amount(part) for part in text.split(",")]


def spool(parser: argparse.ArgumentParser, default: str = "typical") -> None:
    """Which spools, and how large."""
    parser.add_argument(
        "--spool",
        type=words,
        default=words(default),
        metavar="NAMES",
        help="typical (20 to 103 KB a batch), tiny (334 to 1233 B), big (9.9 MB), huge (298 MB), "
        "snapshots (9.9 MB, hard to compress), or a folder with a spool, which is copied and not touched; "
        f"several with commas (default: {default})",
    )
    parser.add_argument(
        "--batches",
        type=numbers,
        metavar="N",
        help="batches a spool; several with commas, one for each of --spool (default: 1000 typical or tiny, 10 big "
        "or snapshots, 1 huge)",
    )
    parser.add_argument("--min-kb", type=kilobytes, metavar="KB", help="smallest batch, in KB of 1000 bytes")
    parser.add_argument("--max-kb", type=kilobytes, metavar="KB", help="largest batch")


def where(parser: argparse.ArgumentParser) -> None:
    """Which file system."""
    parser.add_argument(
        "--where",
        type=words,
        default=["tmpfs"],
        metavar="PLACES",
        help="tmpfs, disk (the folder for temporary files), or a folder; several with commas (default: tmpfs)",
    )


def network(parser: argparse.ArgumentParser, latency: Sequence[float] = (0.0,)) -> None:
    """What the sink's answers are like."""
    parser.add_argument(
        "--latency-ms",
        type=milliseconds,
        default=list(latency),
        metavar="MS",
        help=f"delay of every answer; several with commas (default: {','.join(format(each, 'g') for each in latency)})",
    )
    parser.add_argument(
        "--bandwidth",
        type=amount,
        metavar="BYTES",
        help="bytes a second of the link: 800k, 10M (default: no limit)",
    )


def repeat(parser: argparse.ArgumentParser, default: int = 5) -> None:
    """How often."""
    parser.add_argument(
        "--repeat", type=positive, default=default, metavar="N", help=f"runs each (default: {default})"
    )


def verification(parser: argparse.ArgumentParser) -> None:
    """Whether the flush verifies its token first."""
    parser.add_argument(
        "--no-verify",
        dest="verify",
        action="store_false",
        help="flush without the request that verifies the token",
    )


def in_flight(parser: argparse.ArgumentParser) -> None:
    """More than one request at a time, beside one."""
    parser.add_argument(
        "--in-flight",
        type=numbers,
        default=[],
        metavar="N",
        help="also ours with N requests in flight; several with commas",
    )


def chosen(names: Sequence[str], known: Collection[str], what: str) -> Sequence[str]:
    """``names``, when there are any and all are ``known``."""
    for name in names:
        if name not in known:
            raise BenchmarkError(f"No such {what}: {name} (there are {', '.join(known)})")
    if not names:
        raise BenchmarkError(f"There is no {what} to run.")
    return names
