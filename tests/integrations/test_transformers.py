"""The callback of Hugging Face transformers, in the real ``Trainer``, with a model of two lines."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest

from support.scripted import ScriptedServer
from support.spools import snapshot, write_batch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the framework's imports
    torch = pytest.importorskip("torch")
    pytest.importorskip("accelerate")
    transformers = pytest.importorskip("transformers")

    from cirron_spool.integrations.transformers import CirronSpoolCallback

pytestmark = pytest.mark.filterwarnings("ignore")

TOKEN = "sk-transformers-secret"
STEPS = 4


def train(spool: Path, callback: CirronSpoolCallback, error: Exception | None = None) -> None:
    """Train for some steps. Each one seals a batch, and the second one raises ``error``."""

    class Model(torch.nn.Module):  # type: ignore[misc, name-defined]  # the base need not be installed
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)
            self.steps = 0

        def forward(self, x: Any, **_: Any) -> dict[str, Any]:
            self.steps += 1
            write_batch(spool, self.steps, f"{self.steps:x}")
            if error is not None and self.steps == 2:
                raise error
            return {"loss": self.layer(x).sum()}

    arguments = transformers.TrainingArguments(
        output_dir=str(spool.parent / "out"),
        max_steps=STEPS,
        per_device_train_batch_size=1,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    data = [{"x": torch.zeros(4)} for _ in range(STEPS)]
    trainer = transformers.Trainer(Model(), arguments, train_dataset=data, callbacks=[callback])
    trainer.train()


def test_a_training_delivers_what_it_seals(spool: Path) -> None:
    with ScriptedServer() as server:
        callback = CirronSpoolCallback(spool, api_url=server.url, token=TOKEN)
        train(spool, callback)
        assert [batch_id for batch_id, _ in server.deliveries] == ["1", "2", "3", "4"]
        assert callback.delivery.result is not None
        assert (callback.delivery.result.uploaded, callback.delivery.result.exit_code) == (STEPS, 0)
        for other in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
            train(spool, other)
        assert len(server.deliveries) == 3 * STEPS


def test_after_an_exception_the_delivery_goes_on_until_it_is_ended(spool: Path) -> None:
    with ScriptedServer() as server:
        callback = CirronSpoolCallback(spool, api_url=server.url, token=TOKEN)
        with pytest.raises(KeyError):
            train(spool, callback, KeyError("loss"))
        write_batch(spool, 3, "3")
        callback.delivery.finish()
        assert [batch_id for batch_id, _ in server.deliveries] == ["1", "2", "3"]


def test_a_training_goes_on_without_a_platform(spool: Path) -> None:
    train(spool, CirronSpoolCallback(spool))  # there is no token
    assert len(snapshot(spool)) == STEPS
