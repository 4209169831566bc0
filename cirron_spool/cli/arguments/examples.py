"""The examples of each command, for its help and its man page."""

from __future__ import annotations

from cirron_spool.cli.arguments.parser import Example, Parser

# Keys: the words of a command. {prog}: the program with these words, such as "cirron spool flush".
_EXAMPLES = {
    "inspect": (
        Example("{prog}", "list the spool of the run in this folder"),
        Example("{prog} --dir runs/42/.cirron/spool", "list another spool"),
        Example("{prog} --json", "print JSON for a script"),
        Example("{prog} --discover runs", "print a line for each spool below a folder"),
        Example("{prog} --summary", "see the rate, and when the SDK will delete batches"),
        Example("{prog} --older-than 3d", "list the batches older than three days"),
    ),
    "flush": (
        Example("{prog}", "send the spool of the run in this folder"),
        Example("{prog} --dry-run", "verify the token, and list the batches to send"),
        Example("{prog} --max-bytes 500M", "send the oldest 500 MB"),
        Example("{prog} --dir runs/42/.cirron/spool --quarantine", "set rejected batches aside"),
        Example("{prog} --watch --until-pid 4242", "send each batch while the run goes on"),
        Example("{prog} --discover runs --spools 8", "send every spool below a folder, eight at a time"),
        Example("{prog} --snapshots", "send the snapshots first, then the batches"),
        Example("{prog} --in-flight auto", "choose the number of parallel uploads by the link"),
        Example("{prog} --deadline 90s", "stop sending before a job ends"),
        Example("{prog} --bandwidth 2M --nice", "send slowly beside a run"),
        Example("{prog} --json > result.json", "write the result to a file"),
        Example("{prog} --receipts receipts.jsonl", "keep a receipt of each batch"),
        Example("{prog} --token-file - < token.txt", "read the token from standard input"),
    ),
    "clear": (
        Example("{prog}", "delete the batches, after a question"),
        Example("{prog} --force --dir runs/42/.cirron/spool", "delete them without a question"),
        Example(
            "{prog} --dry-run --older-than 4w", "see which batches older than four weeks would be deleted"
        ),
    ),
    "quarantine list": (Example("{prog}", "show the rejected batches and the reasons"),),
    "quarantine retry": (Example("{prog}", "move all of them back into the spool"),),
    "quarantine clear": (Example("{prog} --force", "delete all of them without a question"),),
    "traces list": (
        Example("{prog}", "see which runs are in the spool of this folder"),
        Example("{prog} --dir runs.tar.gz --json", "list the runs in an archive as JSON"),
    ),
    "traces export": (
        Example("{prog} --format chrome --output trace.json", "open the run in Perfetto or speedscope"),
        Example("{prog} --format otlp --output trace.otlp.json", "give the run to OpenTelemetry"),
        Example("{prog} --format csv --table marks", "read the marks as a table"),
    ),
    "traces snapshots": (
        Example("{prog} --name '*.weight'", "see the statistics of the weights"),
        Example("{prog} --last 1 --json", "print those of the newest session as JSON"),
    ),
    "traces view": (
        Example("{prog}", "see where the newest run spent its time"),
        Example("{prog} --depth 2 --min-wall 10ms", "see the large spans only"),
        Example("{prog} --session 5f2c81aa --name 'eval*'", "see the evaluations of one session"),
    ),
    "receipts verify": (
        Example("{prog} receipts.jsonl", "check that no receipt was changed"),
        Example("{prog} receipts.jsonl --against received", "also compare the bytes in a receiver's store"),
    ),
    "receive": (
        Example("{prog} --store received", "receive on this machine"),
        Example("{prog} --store received --host 0.0.0.0 --token sk-try-it", "receive from other machines"),
    ),
    "status": (
        Example("{prog}", "show the spool, the login and the next step"),
        Example("{prog} --offline --json", "print JSON, without a request"),
    ),
    "auth login": (
        Example("{prog}", "sign in with a code"),
        Example("{prog} --with-token < token.txt", "save a long-lived token"),
        Example("{prog} --url https://cirron.example.com", "sign in to a self-hosted platform"),
    ),
    "auth status": (Example("{prog} --json", "print the account of the token as JSON"),),
    "auth refresh": (Example("{prog}", "renew the token before a long run"),),
    "auth logout": (Example("{prog}", "remove the tokens from a shared machine"),),
    "auth token": (Example('CIRRON_API_KEY="$({prog})" python train.py', "give the token to a run"),),
    "config list": (
        Example("{prog}", "show the origin of each setting"),
        Example("{prog} --json", "print all settings as JSON"),
    ),
    "config get": (Example("{prog} apiUrl", "print one value"),),
    "config set": (
        Example("{prog} timeout 90s", "give a slow platform more time"),
        Example("{prog} apiUrl https://cirron.example.com", "use a self-hosted platform"),
        Example("{prog} token < token.txt", "set a long-lived token"),
    ),
    "config unset": (Example("{prog} timeout", "go back to the default"),),
    "config path": (Example('$EDITOR "$({prog})"', "open the file in an editor"),),
    "completion": (
        Example('eval "$({prog} bash)"', "complete in this shell"),
        Example("{prog} fish > ~/.config/fish/completions/cirron-spool.fish", "complete in each new fish"),
    ),
}


def add_examples(parser: Parser, words: str = "") -> None:
    """Set the examples of ``parser`` and of each command below it. ``words`` are the words of its command."""
    parser.examples = tuple(
        Example(example.command.format(prog=parser.prog), example.purpose)
        for example in _EXAMPLES.get(words, ())
    )
    for name, command in parser.commands.items():
        # "cirron spool flush" and "cirron-spool flush" have the same examples.
        add_examples(command, "" if name == "spool" else f"{words} {name}".lstrip())
    if parser.commands:
        # A group shows the first example of each of its commands.
        parser.examples = tuple(command.examples[0] for command in parser.commands.values())
