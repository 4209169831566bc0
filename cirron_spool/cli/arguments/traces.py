"""``traces list``, ``view``, ``export`` and ``snapshots``."""

from __future__ import annotations

from cirron_spool.cli.arguments.parser import Parser
from cirron_spool.cli.arguments.values import Measure, OneOf, Whole

# The actions of this package. The official tool gets any other word after ``cirron traces``.
ACTIONS = ("list", "view", "export", "snapshots")

FORMATS = ("json", "csv", "parquet", "otlp", "chrome")
TABLES = ("spans", "marks", "snapshots")

_WALLS = Measure(
    {"ms": 10**6, "ns": 1, "us": 1000, "µs": 1000, "s": 10**9, "m": 60 * 10**9},
    "a duration with a unit (ns, us, ms, s or m)",
    least=0,
)


def add_traces(group: Parser) -> None:
    """Add ``traces``."""
    parser = group.add_command(
        "traces",
        help="show the traces in a spool",
        description="Read the batches of a spool, of a receiver's store or of an archive, and show the run in them. "
        "Nothing is changed, sent or locked.",
    )
    parser.make_group("action", "ACTION")
    _add_list(parser)
    _add_view(parser)
    _add_export(parser)
    _add_snapshots(parser)
    for name, action in parser.commands.items():
        action.set_defaults(run="traces", action=name)


def _add_list(group: Parser) -> None:
    parser = group.add_command(
        "list",
        help="list the sessions",
        description="List the sessions in the spool, oldest first. A session is a run of one process under "
        "ci.profile().",
    )
    _add_place(parser)
    _add_sessions(parser, "all")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _add_view(group: Parser) -> None:
    parser = group.add_command(
        "view",
        help="show the scope tree of a run",
        description="Show the spans of a run as a tree, with durations and marks. Siblings of one name are folded into "
        "one line with count, total, median and 95th percentile.",
    )
    _add_place(parser)
    _add_sessions(parser, "the newest run with all its ranks")
    folding = parser.add_argument_group("folding", "Spans that are not shown one by one are folded by name.")
    folding.add_argument(
        "--depth", metavar="N", read=Whole(0, 100), example="3", help="unfold N levels below the session"
    )
    folding.add_argument(
        "--min-wall",
        metavar="TIME",
        read=_WALLS,
        example="1ms",
        help="fold spans that are shorter than TIME",
    )
    folding.add_argument(
        "--siblings",
        metavar="N",
        read=Whole(1),
        example="50",
        help="fold siblings of one name when there are more than N (default: 20)",
    )
    folding.add_argument(
        "--name",
        metavar="NAME",
        example="epoch",
        help="only spans of this name or pattern, with their ancestors and descendants",
    )
    parser.add_argument(
        "--html",
        metavar="FILE",
        place="file",
        takes_dash=True,
        example="trace.html",
        help="write an HTML page with flame graphs and marks to FILE (needs the extra html)",
    )
    parser.add_argument("--open", action="store_true", help="open that page in the browser")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _add_export(group: Parser) -> None:
    parser = group.add_command(
        "export",
        help="write the records for another tool",
        description="Write the spans and marks in the format of another tool: otlp for OpenTelemetry, chrome for "
        "Perfetto and speedscope, csv and parquet (needs the extra parquet) for tables, json for all records.",
    )
    _add_place(parser)
    _add_sessions(parser, "all")
    parser.add_argument(
        "--format",
        metavar="NAME",
        read=OneOf(*FORMATS),
        required=True,
        example="chrome",
        help=", ".join(FORMATS),
    )
    parser.add_argument(
        "--table",
        metavar="NAME",
        read=OneOf(*TABLES),
        default="spans",
        example="marks",
        help="the table of csv and parquet: spans, marks or snapshots (default: spans)",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        place="file",
        takes_dash=True,
        example="trace.json",
        default="-",
        help="the file to write (default: -, standard output)",
    )
    parser.set_defaults(json=False)


def _add_snapshots(group: Parser) -> None:
    parser = group.add_command(
        "snapshots",
        help="show the statistics of tensors",
        description="Show the statistics and the histogram of each tensor that a sampled or full run has recorded.",
    )
    _add_place(parser)
    _add_sessions(parser, "all")
    parser.add_argument(
        "--name", metavar="NAME", example="*.weight", help="only tensors of this name or pattern"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _add_place(parser: Parser) -> None:
    parser.add_argument(
        "--dir",
        "--spool",
        metavar="PATH",
        place="directory",
        example="runs/42/.cirron/spool",
        help="a spool, a receiver's store, a folder with spools below it, or a tar or zip file of one "
        "(default: $CIRRON_OUTPUT_DIR/spool or ./.cirron/spool)",
    )


def _add_sessions(parser: Parser, default: str) -> None:
    parser.add_argument(
        "--session", metavar="ID", example="5f2c81aa", help="the session whose identifier begins with ID"
    )
    parser.add_argument(
        "--last", metavar="N", read=Whole(1), example="1", help=f"the newest N sessions (default: {default})"
    )
