"""Batches in the SDK's own shape: its records, its envelope, its serialiser, with random ids and values.

What a flush costs depends on what gzip makes of the content, so the content must be as hard to compress as a real
run's: every id is random, every value has all its digits, times advance by jittered steps.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from cirron.core.flush import Batch, _mark_to_dict, _scope_to_dict
from cirron.core.json import dumps_utf8
from cirron.core.mark import Mark
from cirron.core.scope import Scope
from cirron.snapshots.types import TraceSnapshot, snapshot_to_dict

Record = dict[str, Any]
# the envelope's key, what makes its records, and how many
Plan = list[tuple[str, Callable[[], Record], int]]

# Above this a batch is serialised piece by piece: the text is the same, the memory is a piece's.
STREAMED_BYTES = 8 << 20
_PIECE_RECORDS = 8192

_SPANS = ("epoch", "step", "data.load", "forward", "backward", "optimizer.step", "checkpoint.save", "eval")
_MARKS = ("loss", "accuracy", "grad_norm", "lr", "samples_per_sec", "gpu.utilization", "gpu.memory_used")
_LAYERS = tuple(
    f"encoder.layers.{layer}.{part}.{kind}"
    for layer in range(24)
    for part in ("self_attn.q_proj", "self_attn.k_proj", "mlp.fc1", "mlp.fc2", "norm")
    for kind in ("weight", "bias", "weight.grad")
)


@dataclass(frozen=True, slots=True)
class Content:
    """Records to fill batches with: their makers, and how the bytes are shared out among them."""

    spans: float
    marks: float
    snapshots: float


# What the SDK seals each second of a training loop is spans and marks; a long pause between flushes makes them many,
# and a snapshot policy adds tensors' statistics, whose random digits compress a third slower and less.
PLAIN = Content(spans=0.7, marks=0.3, snapshots=0.0)
SOME_SNAPSHOTS = Content(spans=0.63, marks=0.27, snapshots=0.1)
MOSTLY_SNAPSHOTS = Content(spans=0.14, marks=0.06, snapshots=0.8)


class Maker:
    """Makes records; the state is a clock that only moves forward and the ids that records refer to."""

    def __init__(self, random_: random.Random, clock_ns: int) -> None:
        self._random = random_
        self.clock_ns = clock_ns
        self._parent = new_id()
        self._index = 0
        self._step_ns = 1_000_000
        self._pid = random_.randrange(1000, 60000)
        self._thread = random_.randrange(1 << 46)

    def span(self) -> Record:
        """A closed scope as the SDK's flush thread writes it."""
        random_ = self._random
        self._index += 1
        start = self._tick()
        scope = Scope(
            new_id(),
            random_.choice(_SPANS),
            self._index,
            {"device": "cuda:0", "loss": random_.random(), "throughput": random_.random() * 4000},
            self._parent,
            start,
            None,
            self._thread,
            self._pid,
            0,
        )
        scope.end_ns = self._tick()
        scope.cpu_ns = random_.randrange(10_000_000)
        scope.memory_peak_bytes = random_.randrange(1 << 33)
        scope.marks = [new_id() for _ in range(random_.randrange(2))]
        if random_.random() < 0.1:
            self._parent = scope.id
        return _scope_to_dict(scope)

    def mark(self) -> Record:
        """A metric mark as the SDK's flush thread writes it."""
        name = self._random.choice(_MARKS)
        value = self._random.random()
        return _mark_to_dict(Mark(new_id(), self._parent, name, "float", value, None, self._tick(), "point"))

    def snapshot(self) -> Record:
        """A tensor's statistics as the SDK's snapshot policy writes them."""
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
        name = random_.choice(_LAYERS)
        shape = [1024, 1024]
        return snapshot_to_dict(
            TraceSnapshot(new_id(), self._parent, name, shape, "float32", "stats", stats, None, self._tick())
        )

    def pace(self, records: int) -> None:
        """Spread the next ``records`` over about a second: what the SDK seals in one batch."""
        self._step_ns = max(2, 1_000_000_000 // max(1, records))

    def _tick(self) -> int:
        self.clock_ns += self._random.randrange(1, self._step_ns)
        return self.clock_ns


def new_id() -> str:
    """32 hexadecimal digits, as the SDK's uuid4 ids have."""
    return os.urandom(16).hex()


def _mean_bytes(make: Callable[[], Record]) -> float:
    sample = 64
    return len(dumps_utf8([make() for _ in range(sample)])) / sample


class Batches:
    """Batches of about a wanted size."""

    def __init__(self, content: Content, seed: int, clock_ns: int) -> None:
        self._maker = Maker(random.Random(seed), clock_ns)
        self._content = content
        self._envelope = len(dumps_utf8(Batch(new_id(), clock_ns, [], [], []).to_json()))
        self._span_bytes = _mean_bytes(self._maker.span)
        self._mark_bytes = _mean_bytes(self._maker.mark)
        self._snapshot_bytes = _mean_bytes(self._maker.snapshot)

    def write(self, size: int, open_: Callable[[int, str], BinaryIO]) -> tuple[int, str]:
        """Write a batch of about ``size`` bytes to what ``open_(created_ns, batch_id)`` opens; its name's parts."""
        maker = self._maker
        batch = Batch(new_id(), maker.clock_ns, [], [], [])
        plan = self._plan(size)
        maker.pace(sum(count for _, _, count in plan))
        with open_(batch.created_ns, batch.batch_id) as file:
            if size <= STREAMED_BYTES:
                for part, make, count in plan:
                    getattr(batch, part).extend(make() for _ in range(count))
                file.write(dumps_utf8(batch.to_json()))
            else:
                self._stream(batch, plan, file)
        return batch.created_ns, batch.batch_id

    def _plan(self, size: int) -> Plan:
        """How many of which records come to about ``size`` bytes; at least one, as the SDK seals no empty batch."""
        room = max(0.0, size - self._envelope)
        content = self._content
        snapshots = int(room * content.snapshots / self._snapshot_bytes)
        spans = int(room * content.spans / self._span_bytes)
        left = room - snapshots * self._snapshot_bytes - spans * self._span_bytes
        marks = max(0 if spans else 1, int(left / self._mark_bytes))
        return [
            ("spans", self._maker.span, spans),
            ("marks", self._maker.mark, marks),
            ("snapshots", self._maker.snapshot, snapshots),
        ]

    def _stream(self, batch: Batch, plan: Plan, file: BinaryIO) -> None:
        """The same text as ``dumps_utf8(batch.to_json())``, a piece at a time."""
        text = dumps_utf8(batch.to_json())
        for part, make, count in plan:
            empty = b'"%s":[]' % part.encode()
            before, _, text = text.partition(empty)
            file.write(before + empty[:-1])
            for start in range(0, count, _PIECE_RECORDS):
                records = [make() for _ in range(min(_PIECE_RECORDS, count - start))]
                file.write((b"," if start else b"") + dumps_utf8(records)[1:-1])
            file.write(b"]")
        file.write(text)
