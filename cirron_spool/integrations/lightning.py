"""A callback for PyTorch Lightning that delivers the spool while a ``Trainer`` runs.

It needs the package ``lightning`` or ``pytorch-lightning``, and works with the ``Trainer`` of both.
"""

from __future__ import annotations

import os
from typing import Any

from cirron_spool.integrations.background import BackgroundDelivery
from cirron_spool.watch import WATCH_GRACE_S

try:
    from lightning.pytorch import Callback
except ModuleNotFoundError:
    from pytorch_lightning import Callback


class CirronSpoolCallback(Callback):
    """Delivers what the Cirron SDK seals during ``fit``, ``validate``, ``test`` and ``predict``.

    ``Trainer(callbacks=[CirronSpoolCallback()])``. The arguments are those of
    :class:`~cirron_spool.BackgroundDelivery`; a token in them is part of a pickle of the trainer.

    Each rank has the callback, and one of those with the same spool delivers. A failure is a warning, and never stops
    the training. The end of a stage, and an exception, wait up to ``grace_s`` seconds for the last batches.
    ``delivery.result`` has the counts.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        grace_s: float = WATCH_GRACE_S,
        **options: Any,
    ) -> None:
        self.delivery = BackgroundDelivery(directory, grace_s=grace_s, **options)

    def setup(self, *_: Any, **__: Any) -> None:
        """Begin with the stage."""
        self.delivery.start()

    def teardown(self, *_: Any, **__: Any) -> None:
        """End with the stage."""
        self.delivery.finish()

    def on_exception(self, *_: Any, **__: Any) -> None:
        """End with an exception, also with Ctrl-C: no ``teardown`` follows."""
        self.delivery.finish()
