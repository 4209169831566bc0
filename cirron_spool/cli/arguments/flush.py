"""``flush``."""

from __future__ import annotations

from cirron_spool.cli.arguments.options import EXIT_CODES, add_dry_run, add_places, add_selection
from cirron_spool.cli.arguments.parser import Parser
from cirron_spool.cli.arguments.values import End, OneOf, Whole, WholeOr, size_value, time_value


def add_flush(group: Parser) -> None:
    """Add ``flush``."""
    parser = group.add_command(
        "flush",
        help="upload buffered batches to the platform",
        description=(
            "Upload every batch, oldest first, and delete each one after its own acknowledgement. A batch that cannot "
            "be delivered stays and ends the flush. The next flush starts with this batch."
        ),
        epilog=EXIT_CODES,
    )
    several = add_places(parser)
    several.add_argument(
        "--spools",
        metavar="N",
        read=Whole(1, 64),
        example="8",
        help="number of spools to flush at the same time, each in its own order (default: 4)",
    )
    _add_cluster(parser)
    add_dry_run(parser, "verify the token and list the batches to send; send and delete nothing")
    add_selection(parser)
    snapshots = parser.add_argument_group("snapshots")
    snapshots.add_argument(
        "--snapshots",
        action="store_true",
        help="upload the run's weights and gradients first, each file once; they stay on disk",
    )
    snapshots.add_argument(
        "--delete-snapshots",
        action="store_true",
        help="with --snapshots: delete each file after its own acknowledgement",
    )
    server = parser.add_argument_group("server and credentials")
    server.add_argument(
        "--api-url",
        metavar="URL",
        example="https://api.cirron.com",
        help="the platform's API (default: CIRRON_API_ENDPOINT or apiUrl)",
    )
    server.add_argument(
        "--token-file",
        metavar="FILE",
        place="file",
        takes_dash=True,
        example="token.txt",
        help="read the token from FILE, - for standard input (default: CIRRON_API_KEY)",
    )
    server.add_argument(
        "--timeout",
        metavar="TIME",
        read=time_value(1),
        example="30s",
        dest="timeout_ms",
        help="longest time without progress, such as 30s or 2m; a number alone is in ms (default: 30000)",
    )
    server.add_argument(
        "--retries",
        metavar="N",
        read=Whole(0, 100),
        example="3",
        help="attempts after the first, per batch (default: 3)",
    )
    server.add_argument(
        "--no-verify", action="store_false", dest="verify", help="do not verify the token before the flush"
    )
    server.add_argument(
        "--allow-http",
        action="store_true",
        default=None,
        help="send credentials over plain http (closed networks)",
    )
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--deadline",
        metavar="TIME",
        read=End(),
        example="90s",
        help="end before TIME, such as 90s from now or 04:30, with exit code 4 if batches are left",
    )
    limits.add_argument(
        "--bandwidth",
        metavar="SIZE",
        read=size_value(1, suffix="/s"),
        example="2M",
        help="most bytes of request bodies a second, such as 2M (default: no limit)",
    )
    limits.add_argument(
        "--nice",
        action="store_true",
        help="run with the lowest CPU and disk priority",
    )
    failures = parser.add_argument_group("failures")
    failures.add_argument(
        "--quarantine", action="store_true", help="set rejected batches aside in .cirron/quarantine and go on"
    )
    failures.add_argument(
        "--keep-going", action="store_true", help="skip a batch whose retries are used up, and go on"
    )
    watch = parser.add_argument_group("watch")
    watch.add_argument(
        "--watch",
        action="store_true",
        help="follow a run: send each new batch, and wait for a missing spool, platform or login",
    )
    watch.add_argument(
        "--until-pid",
        metavar="PID",
        read=Whole(1, 2**31 - 1),
        example="4242",
        help="end the watch when the process PID has ended and its batches are sent",
    )
    watch.add_argument(
        "--idle-exit",
        metavar="TIME",
        read=time_value(1),
        example="5m",
        dest="idle_exit_ms",
        help="end the watch after TIME without a new batch (default: never)",
    )
    watch.add_argument(
        "--grace",
        metavar="TIME",
        read=time_value(0),
        example="30s",
        dest="grace_ms",
        help="after the first signal, send the remaining batches for TIME at most (default: 10s)",
    )
    speed = parser.add_argument_group("speed")
    speed.add_argument(
        "--in-flight",
        metavar="N",
        read=WholeOr("auto", 1, 64),
        example="8",
        default=1,
        help="batches uploaded at the same time, or auto for as many as the link needs; with more than 1, batches may "
        "arrive out of order (default: 1)",
    )
    speed.add_argument(
        "--prefetch",
        metavar="N",
        read=Whole(1),
        example="64",
        dest="prefetch_batches",
        help="batches held ready (default: 64)",
    )
    speed.add_argument(
        "--prefetch-bytes",
        metavar="SIZE",
        read=size_value(1),
        example="4M",
        help="compressed bytes held ready, such as 4M (default: 4194304)",
    )
    speed.add_argument(
        "--chunk-bytes",
        metavar="SIZE",
        read=size_value(1),
        example="256K",
        help="bytes read and compressed at a time (default: 262144)",
    )
    speed.add_argument(
        "--disk-work",
        metavar="PLACE",
        read=OneOf("inline", "thread"),
        example="thread",
        help="inline: small files are read and deleted in the event loop; thread: all in a thread (default: inline)",
    )
    speed.add_argument(
        "--gzip-library",
        metavar="NAME",
        words=("auto", "isal", "zlib-ng", "zlib"),
        example="isal",
        help="auto, isal, zlib-ng or zlib (default: auto, the fastest installed)",
    )
    speed.add_argument(
        "--gzip-level",
        metavar="N",
        read=Whole(0),
        example="1",
        help="compression level (default: the library's fast one)",
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--metrics-file",
        metavar="FILE",
        place="file",
        example="cirron_spool.prom",
        help="write metrics for Prometheus to FILE, every 15 s and at the end (needs the extra metrics)",
    )
    output.add_argument(
        "--receipts",
        metavar="FILE",
        place="file",
        example="receipts.jsonl",
        help="append a receipt to FILE for each acknowledged batch, before the batch is deleted",
    )
    forms = output.add_mutually_exclusive_group()  # as in _EXCLUSIVE
    forms.add_argument("--json", action="store_true", help="print one JSON object at the end")
    forms.add_argument(
        "--json-events", action="store_true", help="print a line with a JSON object for each event"
    )
    loudness = output.add_mutually_exclusive_group()
    loudness.add_argument("-q", "--quiet", action="store_true", help="print nothing but warnings and errors")
    loudness.add_argument(
        "-v", "--verbose", action="store_true", help="print a line to standard error for each event"
    )
    output.add_argument(
        "--log-file",
        metavar="FILE",
        place="file",
        example="flush.log",
        help="append each event and message to FILE, with a time stamp",
    )
    parser.set_defaults(run="flush")


def _add_cluster(parser: Parser) -> None:
    """Add the options of a flush on many machines."""
    cluster = parser.add_argument_group(
        "many machines", "Flush on a Dask cluster, with --discover or --dir (needs cirron-spool[dask])."
    )
    cluster.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        example="tcp://HOST:8786",
        help="the Dask scheduler whose workers flush the spools: an address, or a scheduler file",
    )
    cluster.add_argument(
        "--send-credentials",
        action="store_true",
        help="with --scheduler tls://HOST: the workers use this machine's token in place of their own",
    )
    cluster.add_argument(
        "--scheduler-timeout",
        metavar="TIME",
        read=time_value(1),
        example="30s",
        dest="scheduler_ms",
        help="longest wait for the scheduler or a worker (default: 30s)",
    )
