"""One cluster for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.dask_cluster import DaskCluster, dask_cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """Two workers of four threads, with a login of their own. The tests say which platform."""
    with dask_cluster(tmp_path_factory.mktemp("dask"), config={"token": "access-0"}) as running:
        yield running
