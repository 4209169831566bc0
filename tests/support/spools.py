"""Spools that the real ``cirron-sdk`` has written, and odd files beside its batches."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from cirron.core.flush import Batch, SpoolWriter, _mark_to_dict, _scope_to_dict
from cirron.core.mark import Mark
from cirron.core.scope import Scope

from .cli import SAFETY_NET, clean_environment

# Steps in a batch: each is a step span, two spans inside it, and two marks; about 1.6 KB.
Steps = int | tuple[int, int]
TINY: Steps = 0  # one span and one mark, below the 1024 bytes from which a batch is compressed
TYPICAL: Steps = (14, 62)  # 20 to 100 KB
BIG: Steps = 6500  # about 10 MB

FIRST_NS = 1_776_486_598_051_509_000  # 2026-04-18T04:29:58.051Z


class Sealed(NamedTuple):
    """A batch as it lies on disk."""

    name: str
    data: bytes

    @property
    def batch_id(self) -> str:
        """The id as written in the name."""
        return self.name.partition("-")[2].removesuffix(".json")

    @property
    def created_ns(self) -> int:
        """The time as written in the name, nanoseconds since the epoch."""
        return int(self.name.partition("-")[0])


def sdk_batches(
    directory: Path,
    count: int,
    *,
    spans: Steps = TYPICAL,
    seed: int = 0,
    first_ns: int = FIRST_NS,
    max_bytes: int | None = None,
) -> list[Sealed]:
    """Write `count` batches into `directory` through the SDK's own ``SpoolWriter``; return them oldest first.

    `spans` is TINY, TYPICAL, BIG, or steps a batch as a number or a range. Times are distinct and increasing,
    about a second apart from `first_ns` on; ids and values are random, the same for the same `seed`. A small
    `max_bytes` makes the writer evict: then what is returned is what is left.
    """
    rng = random.Random(seed)
    writer = SpoolWriter(directory) if max_bytes is None else SpoolWriter(directory, max_bytes=max_bytes)
    created_ns = first_ns
    for index in range(count):
        steps = spans if isinstance(spans, int) else rng.randint(*spans)
        writer.write(_batch(rng, index, created_ns, steps))
        created_ns += rng.randint(900_000_000, 1_100_000_000)
    return snapshot(directory)


def write_batch(directory: Path, created_ns: int, batch_id: str, body: bytes = b'{"spans":[]}') -> Path:
    """Seal `body` under a name made of any time and id, the SDK's way: a temporary name, then ``os.replace``."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{created_ns:020d}-{batch_id}.json"
    temporary = path.with_suffix(".json.tmp")
    temporary.write_bytes(body)
    os.replace(temporary, path)
    return path


def random_batch(spool: Path, size: int, created_ns: int = 1) -> bytes:
    """A batch of `size` random bytes: its body is no smaller, so it does not vanish into the kernel's buffers."""
    body = random.Random(size).randbytes(size)
    write_batch(spool, created_ns, f"{created_ns:02x}", body)
    return body


def profiled_run(
    directory: Path, *, batches: int = 3, steps: int = 20, followed: bool = False
) -> list[Sealed]:
    """Run a short loop under the real ``ci.profile()`` in a process of its own; return what it sealed.

    `directory` is its CIRRON_OUTPUT_DIR, so the spool is ``directory/"spool"``. There are at least `batches`
    batches: the loop asks for each with ``ci.flush()``, the SDK's own thread may seal more. With ``followed`` another
    process empties the spool meanwhile, and nothing is returned.
    """
    directory.mkdir(parents=True, exist_ok=True)
    env = clean_environment(directory, {"CIRRON_OUTPUT_DIR": str(directory), "CIRRON_ENABLED": "1"})
    command = [sys.executable, "-c", _TRAINING, str(batches), str(steps)]
    done = subprocess.run(
        command, cwd=directory, env=env, capture_output=True, timeout=SAFETY_NET, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    if followed:
        return []
    sealed = snapshot(directory / "spool")
    assert len(sealed) >= batches, done.stderr.decode()
    return sealed


def snapshot(directory: Path) -> list[Sealed]:
    """The batches in `directory`, in order of created_ns as a number, then of name; without any that vanish."""
    if not directory.exists():
        return []
    names = [path for path in directory.iterdir() if re.fullmatch(r"[0-9]+-[0-9a-f]+\.json", path.name)]
    found: list[Sealed] = []
    for path in names:
        with suppress(FileNotFoundError):
            if path.is_file() and not path.is_symlink():
                found.append(Sealed(path.name, path.read_bytes()))
    return sorted(found, key=lambda batch: (batch.created_ns, batch.name))


_TRAINING = """
import random, sys
import cirron as ci

ci.profile(frameworks=[], output="spool")
for epoch in range(int(sys.argv[1])):
    with ci.scope("epoch", index=epoch):
        for step in range(int(sys.argv[2])):
            with ci.scope("step", index=step, lr=random.random()):
                ci.mark("loss", random.random())
    ci.flush()
ci.shutdown()
"""


def _batch(rng: random.Random, index: int, created_ns: int, steps: int) -> Batch:
    scopes: list[Scope] = []
    marks: list[Mark] = []
    root = _scope(rng, "epoch", index, None, created_ns - 1_000_000_000, {})
    for step in range(steps):
        start = created_ns - 1_000_000_000 + step * (900_000_000 // steps)
        attrs: dict[str, object] = {"lr": rng.random(), "batch_size": rng.choice([16, 32, 64])}
        outer = _scope(rng, "train_step", step, root.id, start, attrs)
        inner = ("forward", "backward")
        scopes += [_scope(rng, name, None, outer.id, start + rng.randrange(1000), {}) for name in inner]
        marks += [_mark(rng, name, outer) for name in ("loss", "grad_norm")]
        scopes.append(outer)
    if not steps:
        marks.append(_mark(rng, "loss", root))
    scopes.append(root)
    spans = [_scope_to_dict(scope) for scope in scopes]
    return Batch(_hex(rng), created_ns, spans, [_mark_to_dict(mark) for mark in marks])


def _scope(
    rng: random.Random,
    name: str,
    index: int | None,
    parent: str | None,
    start_ns: int,
    attrs: dict[str, object],
) -> Scope:
    scope = Scope(_hex(rng), name, index, attrs, parent, start_ns, None, 140_000_000_000_000, 4242, 0)
    scope.end_ns = start_ns + rng.randrange(1_000, 40_000_000)
    scope.cpu_ns = rng.randrange(1_000, 40_000_000)
    return scope


def _mark(rng: random.Random, name: str, scope: Scope) -> Mark:
    mark = Mark(
        _hex(rng), scope.id, name, "float", rng.random() * 10, {}, scope.start_ns + rng.randrange(1000)
    )
    scope.marks.append(mark.id)
    return mark


def _hex(rng: random.Random) -> str:
    return f"{rng.getrandbits(128):032x}"
