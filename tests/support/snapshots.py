"""Snapshots of a run as the SDK lays them out: real files of the format where tensors matter, else plain bytes."""

from __future__ import annotations

import json
from pathlib import Path

from cirron.snapshots.blob import blob_remote_key, snapshot_dir

from .answers import Answer
from .scripted import ScriptedServer
from .wire import Request

BLOBS = "/api/traces/blobs/"


def safetensors(data: bytes, name: str = "layer.weight") -> bytes:
    """A file of the format with one tensor of ``data``."""
    tensor = {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}
    header = json.dumps({"__metadata__": {"format": "np"}, name: tensor}).encode()
    return len(header).to_bytes(8, "little") + header + data


def lay(
    spool: Path, span: str = "a" * 32, kind: str = "weights", data: bytes = b"tensors", *, raw: bool = False
) -> tuple[str, Path]:
    """Write a snapshot of the run with ``spool``; its key, and its path. ``raw`` writes the bytes as they are."""
    folder = snapshot_dir(spool.parent, span)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{kind}.safetensors"
    path.write_bytes(data if raw else safetensors(data))
    return blob_remote_key(span, path.name), path


def accept(server: ScriptedServer, *keys: str, answer: Answer | None = None) -> None:
    """Have ``server`` take the snapshots with ``keys``, as often as they come."""
    for key in keys:
        server.on("PUT", BLOBS + key, default=answer or Answer(201, headers=[("Location", f"blob://{key}")]))


def puts(server: ScriptedServer) -> list[Request]:
    """The requests for snapshots, in order of arrival."""
    with server.changed:
        return [request for request in server.requests if request.method == "PUT"]


def keys_put(server: ScriptedServer) -> list[str]:
    """The keys of the requests for snapshots, in order of arrival."""
    return [request.path.removeprefix(BLOBS) for request in puts(server)]
