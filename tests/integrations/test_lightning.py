"""The callback of PyTorch Lightning, in the real ``Trainer``: of both packages, with errors, on two ranks."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from support.scripted import ScriptedServer
from support.spools import snapshot, write_batch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the framework's imports
    torch = pytest.importorskip("torch")
    pytest.importorskip("lightning.pytorch")
    pytest.importorskip("pytorch_lightning")
    import lightning.pytorch
    import pytorch_lightning

    from cirron_spool.integrations.lightning import CirronSpoolCallback

pytestmark = pytest.mark.filterwarnings("ignore")

TOKEN = "sk-lightning-secret"
STEPS = 4


def fit(
    framework: Any, spool: Path, callback: CirronSpoolCallback, error: Any = None, **options: Any
) -> None:
    """Train for some steps. Each one seals a batch, and the second one raises ``error``."""

    class Model(framework.LightningModule):  # type: ignore[misc]  # the base is chosen at run time
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def training_step(self, batch: Any, number: int) -> Any:
            write_batch(spool, number + 1, f"{self.global_rank:x}{number:x}")
            if error is not None and number == 1:
                raise error
            return self.layer(batch).sum()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    trainer = framework.Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=STEPS,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        callbacks=[callback],
        **options,
    )
    trainer.fit(Model(), torch.utils.data.DataLoader(torch.zeros(4 * STEPS, 4)))


@pytest.mark.parametrize("framework", [lightning.pytorch, pytorch_lightning])
def test_a_fit_delivers_what_it_seals(framework: Any, spool: Path) -> None:
    with ScriptedServer() as server:
        callback = CirronSpoolCallback(spool, api_url=server.url, token=TOKEN)
        fit(framework, spool, callback)
        assert [batch_id for batch_id, _ in server.deliveries] == ["00", "01", "02", "03"]
    assert callback.delivery.result is not None
    assert (callback.delivery.result.uploaded, callback.delivery.result.exit_code) == (STEPS, 0)


@pytest.mark.parametrize(
    ("error", "raised"), [(KeyError("loss"), KeyError), (KeyboardInterrupt(), SystemExit)]
)
def test_an_exception_ends_the_delivery_with_the_last_batches(
    spool: Path, error: BaseException, raised: type[BaseException]
) -> None:
    with ScriptedServer() as server:
        callback = CirronSpoolCallback(spool, api_url=server.url, token=TOKEN)
        with pytest.raises(raised):
            fit(lightning.pytorch, spool, callback, error)
        assert len(server.deliveries) == 2
    assert callback.delivery.result is not None


def test_a_fit_goes_on_without_a_platform(spool: Path) -> None:
    fit(lightning.pytorch, spool, CirronSpoolCallback(spool))  # there is no token
    assert len(snapshot(spool)) == STEPS


def test_two_ranks_of_one_spool_deliver_each_batch_once(spool: Path) -> None:
    with ScriptedServer() as server:
        callback = CirronSpoolCallback(spool, api_url=server.url, token=TOKEN)
        fit(lightning.pytorch, spool, callback, strategy="ddp_fork", devices=2)
        sent = [batch_id for batch_id, _ in server.deliveries]
    # What a rank seals while the other one ends stays for the next flush.
    left = [batch.batch_id for batch in snapshot(spool)]
    assert sorted([*sent, *left]) == [f"{rank}{number}" for rank in (0, 1) for number in range(STEPS)]
    assert sent
