"""A callback for Hugging Face transformers that delivers the spool while a ``Trainer`` trains."""

from __future__ import annotations

import os
from typing import Any

from transformers import TrainerCallback

from cirron_spool.integrations.background import BackgroundDelivery
from cirron_spool.watch import WATCH_GRACE_S


class CirronSpoolCallback(TrainerCallback):
    """Delivers what the Cirron SDK seals during ``train()``.

    ``Trainer(…, callbacks=[CirronSpoolCallback()])``. The arguments are those of
    :class:`~cirron_spool.BackgroundDelivery`; a token in them is part of a pickle of the trainer.

    Each rank has the callback, and one of those with the same spool delivers. A failure is a warning, and never stops
    the training. The end of the training waits up to ``grace_s`` seconds for the last batches. A ``Trainer`` tells
    its callbacks of no exception: after one, the delivery goes on to the end of the process, or to
    ``delivery.finish()``. ``delivery.result`` has the counts.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        grace_s: float = WATCH_GRACE_S,
        **options: Any,
    ) -> None:
        self.delivery = BackgroundDelivery(directory, grace_s=grace_s, **options)

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Begin with the training."""
        self.delivery.start()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """End with the training."""
        self.delivery.finish()
