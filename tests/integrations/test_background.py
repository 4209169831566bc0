"""``BackgroundDelivery``: a spool is delivered beside a training, which it neither stops nor holds up."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

from cirron_spool import BackgroundDelivery, ConfigError
from support.answers import Gate, ok
from support.cli import spawn
from support.scripted import Answer, ScriptedServer
from support.spools import snapshot, write_batch

TOKEN = "sk-background-secret"


def ids(server: ScriptedServer) -> list[str]:
    return [batch_id for batch_id, _ in server.deliveries]


def test_batches_are_sent_during_the_block_and_the_last_ones_at_its_end(spool: Path) -> None:
    with ScriptedServer() as server:
        with BackgroundDelivery(spool, api_url=server.url, token=TOKEN) as delivery:
            write_batch(spool, 1, "a1")
            server.wait_for(1)
            assert delivery.result is None
            delivery.start()  # it runs already
            write_batch(spool, 2, "a2")
        assert ids(server) == ["a1", "a2"]
        assert delivery.result is not None and delivery.result.uploaded == 2
        with delivery:  # once more
            write_batch(spool, 3, "a3")
        assert delivery.result.uploaded == 1
        assert len(server.deliveries) == 3


# A training as a user writes it, under the real SDK, which seals once an hour here; the training then fails.
_TRAINING = """
import cirron as ci
from cirron_spool import BackgroundDelivery

ci.profile(frameworks=[], output="spool", flush_interval=3600)
delivery = BackgroundDelivery()
delivery.start()
for step in range(3):
    with ci.scope("step", index=step):
        ci.mark("loss", 0.5)
raise KeyError("the training fails")
"""


def test_after_an_exception_the_end_of_the_process_seals_and_sends_the_last_records(tmp_path: Path) -> None:
    with ScriptedServer() as server:
        env = {"CIRRON_OUTPUT_DIR": str(tmp_path / "out"), "CIRRON_ENABLED": "1"}
        config = tmp_path / ".cirron"
        config.mkdir(mode=0o700)
        (config / "config.json").write_text(
            f'{{"apiUrl": "{server.url}", "token": "{TOKEN}"}}', encoding="utf-8"
        )
        with spawn([sys.executable, "-c", _TRAINING], cwd=tmp_path, home=tmp_path, env=env) as running:
            done = running.finish()
        assert done.returncode == 1
        assert done.stderr.rstrip().endswith("KeyError: 'the training fails'")
        bodies = b"".join(body for _, body in server.deliveries)
        assert bodies.count(b'"loss"') == 3


def test_without_a_token_the_training_goes_on_with_a_warning(spool: Path) -> None:
    delivery = BackgroundDelivery(spool)
    write_batch(spool, 1, "a1")
    with pytest.warns(RuntimeWarning, match=r"Not authenticated\. Run cirron auth login"):
        with delivery:
            pass
    assert delivery.result is None
    assert len(snapshot(spool)) == 1


@pytest.mark.parametrize(
    "answer", [Answer(400), Answer(404)], ids=["a batch that is rejected", "a route that is missing"]
)
def test_batches_that_stay_are_a_warning_with_the_cause(spool: Path, answer: Answer) -> None:
    write_batch(spool, 1, "a1")
    write_batch(spool, 2, "a2")
    with ScriptedServer(answer) as server:
        with pytest.warns(
            RuntimeWarning, match=r"left 2 batches in .*(400|404).*\. Run cirron-spool flush --dir"
        ):
            with BackgroundDelivery(spool, api_url=server.url, token=TOKEN) as delivery:
                server.wait_for(1)
    assert delivery.result is not None and delivery.result.exit_code == 1
    assert len(snapshot(spool)) == 2


def test_the_wait_at_the_end_is_bounded(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_batch(spool, 1, "a1")
    gate = Gate()
    with ScriptedServer(ok(stall_before=gate)) as server:
        delivery = BackgroundDelivery(spool, api_url=server.url, token=TOKEN, grace_s=0.1)
        delivery.start()
        server.wait_for(1)
        with pytest.warns(RuntimeWarning, match="left 1 batch"):
            delivery.finish()
        # A thread that hangs, as in a dead file system, is left behind.
        release = threading.Event()
        monkeypatch.setattr("cirron_spool.integrations.background.event_loop.run", lambda _: release.wait())
        monkeypatch.setattr("cirron_spool.integrations.background._END_S", 0.1)
        with pytest.warns(RuntimeWarning, match="did not end in time"), delivery:
            pass
        release.set()
        gate.open()
    assert len(snapshot(spool)) == 1


def test_a_second_rank_waits_for_the_lock_and_takes_over(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cirron_spool.integrations.background.RETRY_S", 0.05)
    with ScriptedServer() as server:
        first = BackgroundDelivery(spool, api_url=server.url, token=TOKEN)
        second = copy.copy(first)
        first.start()
        write_batch(spool, 1, "a1")
        server.wait_for(1)
        second.start()
        first.finish()
        write_batch(spool, 2, "a2")
        server.wait_for(2)
        second.finish()
        assert ids(server) == ["a1", "a2"]
    assert first.result is not None and second.result is not None
    assert (first.result.uploaded, second.result.uploaded) == (1, 1)


def test_a_rank_that_never_had_the_lock_ends_without_a_word(spool: Path) -> None:
    with ScriptedServer() as server:
        holder = BackgroundDelivery(spool, api_url=server.url, token=TOKEN)
        with holder:
            write_batch(spool, 1, "a1")
            server.wait_for(1)
            with warnings.catch_warnings(record=True) as caught:
                with BackgroundDelivery(spool, api_url=server.url, token=TOKEN) as other:
                    pass
            assert (other.result, caught) == (None, [])


def test_a_pickle_and_a_copy_are_not_started(spool: Path) -> None:
    with ScriptedServer() as server:
        with BackgroundDelivery(spool, api_url=server.url, token=TOKEN) as delivery:
            for other in (pickle.loads(pickle.dumps(delivery)), copy.deepcopy(delivery)):
                assert other.finish() is None
            write_batch(spool, 1, "a1")
        assert delivery.result is not None and delivery.result.uploaded == 1
        with pickle.loads(pickle.dumps(delivery)):  # the options came along
            pass


def test_ctrl_c_in_the_last_wait_is_raised_and_keeps_the_batch(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_batch(spool, 1, "a1")
    gate = Gate()
    with ScriptedServer(ok(stall_before=gate)) as server:
        delivery = BackgroundDelivery(spool, api_url=server.url, token=TOKEN)
        delivery.start()
        server.wait_for(1)
        waiting = threading.Event()

        def interrupt() -> None:
            waiting.wait()
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        monkeypatch.setattr("cirron_spool.integrations.background._seal_records", waiting.set)
        with pytest.raises(KeyboardInterrupt):
            delivery.finish()
        thread.join()
        gate.open()
    assert len(snapshot(spool)) == 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"snapshots": "keep"}, ConfigError),
        ({"stop": object()}, ConfigError),
        ({"until_pid": 1}, ConfigError),
        ({"dry_run": True}, ConfigError),
        ({"grace_s": -1}, ConfigError),
        ({"directory": 5}, ConfigError),
        ({"retrys": 3}, TypeError),
    ],
)
def test_a_wrong_option_is_refused_before_the_training(
    options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=next(iter(options))):
        BackgroundDelivery(**options)
