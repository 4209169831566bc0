"""Batches of the SDK's own records, written by the SDK's own serialiser.

Ids are random, values have all their digits, and times advance by random steps. So the text is as hard to compress as
the batches of a real run.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any, BinaryIO

from cirron.core.flush import Batch, _mark_to_dict, _scope_to_dict
from cirron.core.json import dumps_utf8
from cirron.core.mark import Mark
from cirron.core.scope import Scope
from cirron.snapshots.types import TraceSnapshot, snapshot_to_dict

Record = dict[str, Any]

# A large batch is written in pieces, so that its records are never in memory together.
_PIECE_RECORDS = 8192
_SPAN_SHARE = 0.7
_SAMPLE = 64

_SPANS = ("epoch", "step", "data.load", "forward", "backward", "optimizer.step", "checkpoint.save", "eval")
_MARKS = ("loss", "accuracy", "grad_norm", "lr", "samples_per_sec", "gpu.utilization", "gpu.memory_used")
_LAYERS = tuple(
    f"encoder.layers.{layer}.{part}.{kind}"
    for layer in range(24)
    for part in ("self_attn.q_proj", "self_attn.k_proj", "mlp.fc1", "mlp.fc2", "norm")
    for kind in ("weight", "bias", "weight.grad")
)


class RecordMaker:
    """Makes records from a random generator and a clock in nanoseconds that only advances."""

    def __init__(self, random_: random.Random, clock_ns: int) -> None:
        self._random = random_
        self.clock_ns = clock_ns
        self.step_ns = 1_000_000
        self._parent = new_id()
        self._index = 0
        self._pid = random_.randrange(1000, 60000)
        self._thread = random_.randrange(1 << 46)

    def span(self) -> Record:
        """A closed scope."""
        random_ = self._random
        self._index += 1
        start = self._tick()
        name = random_.choice(_SPANS)
        attributes = {
            "device": "cuda:0",
            "loss": random_.random(),
            "throughput": random_.random() * 4000,
        }
        scope = Scope(
            new_id(), name, self._index, attributes, self._parent, start, None, self._thread, self._pid, 0
        )
        scope.end_ns = self._tick()
        scope.cpu_ns = random_.randrange(10_000_000)
        scope.memory_peak_bytes = random_.randrange(1 << 33)
        scope.marks = [new_id() for _ in range(random_.randrange(2))]
        if random_.random() < 0.1:
            self._parent = scope.id
        return _scope_to_dict(scope)

    def mark(self) -> Record:
        """A metric."""
        name, value = self._random.choice(_MARKS), self._random.random()
        return _mark_to_dict(Mark(new_id(), self._parent, name, "float", value, None, self._tick(), "point"))

    def snapshot(self) -> Record:
        """The statistics of a tensor."""
        random_ = self._random
        low, high = -random_.random(), random_.random()
        width = (high - low) / 16
        stats = {
            "mean": random_.gauss(0, 0.01),
            "std": random_.random(),
            "min": low,
            "max": high,
            "norm": random_.random() * 40,
            "histogram": {
                "bins": [low + step * width for step in range(17)],
                "counts": [random_.randrange(1 << 16) for _ in range(16)],
            },
        }
        name, shape = random_.choice(_LAYERS), [1024, 1024]
        return snapshot_to_dict(
            TraceSnapshot(new_id(), self._parent, name, shape, "float32", "stats", stats, None, self._tick())
        )

    def _tick(self) -> int:
        self.clock_ns += self._random.randrange(1, self.step_ns)
        return self.clock_ns


def new_id() -> str:
    """A random id of 32 hexadecimal digits."""
    return os.urandom(16).hex()


def _mean_bytes(make: Callable[[], Record]) -> float:
    return len(dumps_utf8([make() for _ in range(_SAMPLE)])) / _SAMPLE


class BatchWriter:
    """Writes batches of about a wanted size; ``snapshots`` is the share of their bytes that is snapshots."""

    def __init__(self, snapshots: float, seed: int, clock_ns: int) -> None:
        self._maker = RecordMaker(random.Random(seed), clock_ns)
        self._snapshots = snapshots
        self._envelope_bytes = len(dumps_utf8(Batch(new_id(), clock_ns, [], [], []).to_json()))
        self._span_bytes = _mean_bytes(self._maker.span)
        self._mark_bytes = _mean_bytes(self._maker.mark)
        self._snapshot_bytes = _mean_bytes(self._maker.snapshot)

    def write(self, size: int, open_: Callable[[int, str], BinaryIO]) -> None:
        """Write about ``size`` bytes to the file that ``open_(created_ns, batch_id)`` returns."""
        maker = self._maker
        batch = Batch(new_id(), maker.clock_ns, [], [], [])
        room = max(0.0, size - self._envelope_bytes)
        snapshots = int(room * self._snapshots / self._snapshot_bytes)
        spans = int(room * (1 - self._snapshots) * _SPAN_SHARE / self._span_bytes)
        left = room - snapshots * self._snapshot_bytes - spans * self._span_bytes
        marks = max(0 if spans else 1, int(left / self._mark_bytes))  # the SDK writes no empty batch
        # One batch is about a second of a run.
        maker.step_ns = max(2, 1_000_000_000 // (snapshots + spans + marks))
        text = dumps_utf8(batch.to_json())
        with open_(batch.created_ns, batch.batch_id) as file:
            for part, make, count in (
                (b'"spans":[]', maker.span, spans),
                (b'"marks":[]', maker.mark, marks),
                (b'"snapshots":[]', maker.snapshot, snapshots),
            ):
                before, found, text = text.partition(part)
                assert found, "the SDK's envelope has another shape"
                file.write(before + part[:-1])
                for start in range(0, count, _PIECE_RECORDS):
                    records = [make() for _ in range(min(_PIECE_RECORDS, count - start))]
                    file.write((b"," if start else b"") + dumps_utf8(records)[1:-1])
                file.write(b"]")
            file.write(text)
