"""``receive``."""

from __future__ import annotations

from cirron_spool.cli.arguments.parser import Parser
from cirron_spool.cli.arguments.values import Whole, size_value, time_value


def add_receive(group: Parser) -> None:
    """Add ``receive``."""
    parser = group.add_command(
        "receive",
        help="run a small platform, for trials and closed networks",
        description=(
            "Run a small platform, for trials and closed networks. It receives batches and snapshots, stores them as "
            "the SDK wrote them, and acknowledges each one once it is durable. Sign-in works too: the page /device "
            "approves the codes of auth login. The store is itself a spool for inspect and flush."
        ),
    )
    parser.add_argument(
        "--store",
        metavar="DIR",
        place="directory",
        example="received",
        required=True,
        help="the folder for the batches",
    )
    parser.add_argument(
        "--host",
        example="127.0.0.1",
        default="127.0.0.1",
        help="address to listen on (default: 127.0.0.1, this machine)",
    )
    parser.add_argument(
        "--port",
        metavar="N",
        read=Whole(0, 65535),
        example="8787",
        default=8787,
        help="port, 0 for any free one (default: 8787)",
    )
    parser.add_argument(
        "--token",
        example="sk-try-it",
        help="accept only this token, and sign-ins approved with it (default: CIRRON_RECEIVE_TOKEN, or any token)",
    )
    parser.add_argument(
        "--max-bytes",
        metavar="SIZE",
        read=size_value(1),
        example="512M",
        help="largest batch, compressed or not (default: 1G)",
    )
    parser.add_argument(
        "--max-snapshot-bytes",
        metavar="SIZE",
        read=size_value(1),
        example="64G",
        help="largest snapshot (default: 1024G)",
    )
    parser.add_argument(
        "--latency-ms",
        metavar="TIME",
        read=time_value(0),
        example="20",
        default=0,
        help="delay of each answer; a number alone is in ms",
    )
    parser.add_argument(
        "--bandwidth",
        metavar="SIZE",
        read=size_value(1, suffix="/s"),
        example="1M",
        help="most bytes of request bodies a second, such as 1M (default: no limit)",
    )
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="print a line for each batch, snapshot, sign-in and refusal",
    )
    parser.set_defaults(run="receive")
