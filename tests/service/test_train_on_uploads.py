"""A job trains on an uploaded dataset, from its pieces over shards and cache to weights; or its data are gone."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from core.db.session import Database
from core.jobs.checkpoints.replay import find_segment, read_history
from core.jobs.datasets.use import find_dataset_manifest
from core.jobs.ledger.check import Ledger
from core.jobs.queries import get_job_view
from core.jobs.queue.submit import create_job
from core.recipe.data import Dataset, DataSpec
from core.recipe.data.resolve import resolve_dataset
from core.recipe.parse import parse_job
from core.store.base import Store
from core.store.local import LocalStore
from tests.support.databases import POSTGRESQL_IS_SLOW
from tests.support.jobs import OWNER
from tests.support.npz_uploads import ENTRY, LANE, dataset, make_context, npz_bytes, upload
from worker.attempt import Slot, WorkerContext
from worker.replay import replay_segment
from worker.supervisor import serve_one

SLOT = Slot(0, "cpu", "")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def worker(db: Database, store: Store, tmp_path: Path) -> Iterator[WorkerContext]:
    with make_context(db, store, tmp_path) as context:
        yield context


def submit(db: Database, name: str, **fields: Any) -> str:
    """A small job on the newest dataset of this name, resolved as the api does it."""

    def resolve(data: DataSpec) -> DataSpec:
        assert isinstance(data, Dataset)
        return resolve_dataset(data, *find_dataset_manifest(db, ENTRY.project, data.dataset))

    body = {
        "model": {"name": "mlp", "hidden": [8]},
        "data": {"name": "dataset", "dataset": name},
        "optimizer": {"name": "sgd", "lr": 0.1},
        "epochs": 2,
    }
    return create_job(db, parse_job(json.dumps(body | fields).encode(), resolve), owner=OWNER).job_id


def ready(db: Database, store: Store, worker: WorkerContext, **fields: Any) -> str:
    """The version of a dataset that is prepared now."""
    dataset_id, _ = upload(db, store, npz_bytes(**fields))
    assert serve_one(worker, LANE)
    view = dataset(db, dataset_id)
    assert view.status == "ready"
    return view.version or ""


@POSTGRESQL_IS_SLOW
def test_a_job_trains_on_it_from_the_cache(db: Database, store: Store, worker: WorkerContext) -> None:
    version = ready(db, store, worker)
    job_id = submit(db, "mine")
    assert serve_one(worker, SLOT)
    job = get_job_view(db, OWNER, job_id)
    assert job.status == "succeeded", job.error
    assert all({"val", "test"} <= splits.keys() for splits in job.results.values()), job.results
    assert job.results
    folder = worker.settings.prepared / version
    assert np.array_equal(load_file(folder / "targets.safetensors")["targets"], np.arange(1000) % 3)
    assert list(Ledger(db, store, digests=True).iter_findings()) == []


@POSTGRESQL_IS_SLOW
def test_it_is_trained_again_with_the_same_bits(db: Database, store: Store, worker: WorkerContext) -> None:
    """`basin verify JOB` takes the data from the cache, and fetches them where they are not there any more."""
    version = ready(db, store, worker)
    job_id = submit(db, "mine")
    assert serve_one(worker, SLOT)
    shutil.rmtree(worker.settings.prepared / version)
    past = read_history(db, job_id)
    assert replay_segment(past, find_segment(past, None), store, worker.settings).is_exact
    assert (worker.settings.prepared / version).exists()


def harm_shard(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize(
    ("harm", "message"),
    [(harm_shard, "does not match its recorded digest"), (Path.unlink, "is not in the store any more")],
    ids=["damaged", "missing"],
)
@POSTGRESQL_IS_SLOW
def test_a_job_whose_data_is_damaged_fails_with_the_remedy(
    db: Database, store: Store, worker: WorkerContext, harm: Callable[[Path], object], message: str
) -> None:
    """`basin verify` finds it too: the missing one at once, the damaged one by its digest."""
    version = ready(db, store, worker)
    shard = worker.settings.home / "store" / "datasets" / version / "rows-00000.safetensors"
    harm(shard)
    job_id = submit(db, "mine")
    assert serve_one(worker, SLOT)
    error = get_job_view(db, OWNER, job_id).error or {}
    assert (error["code"], error["remedy"]) == (
        "bad_data",
        "Delete the dataset, upload the data again, and submit a new job.",
    )
    assert message in error["message"]
    (finding,) = Ledger(db, store, digests=True).iter_findings()
    assert (finding.rule, finding.about) == ("dataset", f"datasets/{version}/rows-00000.safetensors")


@POSTGRESQL_IS_SLOW
def test_a_manifest_that_is_gone_is_found(db: Database, store: Store, worker: WorkerContext) -> None:
    version = ready(db, store, worker)
    shutil.rmtree(worker.settings.home / "store" / "datasets" / version)
    (finding,) = Ledger(db, store).iter_findings()
    assert (finding.about, "it is missing" in finding.message) == (f"datasets/{version}/manifest.json", True)


@POSTGRESQL_IS_SLOW
def test_a_piece_that_is_gone_before_it_is_prepared_is_found(db: Database, store: Store, worker: WorkerContext) -> None:
    dataset_id, _ = upload(db, store, npz_bytes())
    assert list(Ledger(db, store, digests=True).iter_findings()) == []
    piece = min((worker.settings.home / "store" / "uploads" / dataset_id).iterdir())
    piece.unlink()
    (finding,) = Ledger(db, store).iter_findings()
    assert finding.about == f"uploads/{dataset_id}/{piece.name}"


@POSTGRESQL_IS_SLOW
@pytest.mark.slow
def test_a_dataset_of_the_cache_stays_while_a_job_trains_on_it(
    db: Database, store: Store, worker: WorkerContext, tmp_path: Path
) -> None:
    """Two slots, two datasets, and room for neither: both jobs succeed, and the next one takes what is free."""
    first = ready(db, store, worker)
    one = submit(db, "mine")
    with make_context(db, store, tmp_path, name="tiny", dataset_cache_bytes=0) as tiny:
        assert serve_one(tiny, SLOT)
        second = ready(db, store, tiny, seed=1)
        two = submit(db, "mine")
        assert serve_one(tiny, SLOT)
    assert first != second
    assert [get_job_view(db, OWNER, job_id).status for job_id in (one, two)] == ["succeeded"] * 2
    assert [path.name for path in worker.settings.prepared.glob("[!.]*")] == [second]
