"""One cluster for all tests that need nothing special of theirs: each of its processes takes a second to start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.dask_cluster import DaskCluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """Two workers of four threads. Their login is for another platform than that of a test."""
    pytest.importorskip("distributed")
    from support.dask_cluster import dask_cluster

    with dask_cluster(tmp_path_factory.mktemp("dask"), config={"token": "access-0"}) as running:
        yield running
