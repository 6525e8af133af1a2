"""Batches on a Dask cluster: what the driver makes of workers that die, and of results that it has."""

from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
from refusals import refuses

from molflow_sim.errors import MolflowError
from molflow_sim.runs.scheduler import DaskExecutor

distributed = pytest.importorskip("distributed", reason="needs the extra dask")


@pytest.fixture
def executor() -> DaskExecutor:
    """One whose client only keeps what it is asked."""
    made = DaskExecutor.__new__(DaskExecutor)
    made._client = MagicMock()
    made._client.submit.side_effect = lambda *_, **__: object()
    return made


def test_a_batch_that_kills_its_workers_is_a_named_error(executor, monkeypatch):
    def die(*_, **__):
        raise distributed.KilledWorker("batch-3", SimpleNamespace(address="tcp://10.0.0.2:1"), 3)

    monkeypatch.setattr(distributed, "as_completed", die)
    refuses(MolflowError, "ended several Dask workers .*batch-3", list, executor.run(lambda item: b"", (), [1]))
    executor._client.cancel.assert_called_once()


def test_results_that_have_come_are_let_go(executor, monkeypatch):
    """A future that is held keeps its result in the memory of a worker."""
    monkeypatch.setattr(distributed, "as_completed", lambda futures, **_: [(f, (b"x", 0.0)) for f in list(futures)])
    run = executor.run(lambda item: b"", (), [1, 2, 3])
    assert next(run) == (0, b"x", 0.0) and next(run)[0] == 1
    run.close()
    ((left,), _) = executor._client.cancel.call_args
    assert len(left) == 1
