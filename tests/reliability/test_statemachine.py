"""The state machine's model holds for 120 examples, and notices a flush that deletes what it must not."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import pytest
import statemachine

from cirron_spool.protocol.verdict import Action, Verdict


def test_120_examples(tmp_path: Path) -> None:
    world = statemachine.run(tmp_path, 120, steps=8)
    assert world.crashes > 10
    assert world.flushes > 240


def test_a_flush_that_takes_everything_for_an_acknowledgement_is_noticed(tmp_path: Path) -> None:
    def judge(*_: object, **__: object) -> Verdict:
        return Verdict(Action.ACKNOWLEDGED, 200)

    # Wherever the flush has it from.
    users = [
        name
        for name, module in sys.modules.items()
        if name.startswith("cirron_spool.") and "judge" in vars(module)
    ]
    with ExitStack() as stack:
        for name in users:
            stack.enter_context(patch(f"{name}.judge", judge))
        with pytest.raises(AssertionError, match=r"lost|without an acknowledgement"):
            statemachine.run(tmp_path, 100, steps=8, shrink=False)
