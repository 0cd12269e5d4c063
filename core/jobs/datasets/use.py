"""Which jobs use which dataset: written with the job, read before a dataset is deleted."""

from collections.abc import Sequence

from sqlalchemy import Connection, insert, select

from core.db.session import Database
from core.db.tables import dataset, job, job_dataset, job_state
from core.errors import Conflict, FieldProblem, InvalidSpec
from core.ids import is_id
from core.jobs.datasets.rows import ID_PREFIX
from core.lifecycle import TERMINAL
from core.recipe.data import Dataset, DataSpec
from core.recipe.data.manifest import DatasetManifest
from core.recipe.data.resolve import resolve_dataset
from core.recipe.parse import ResolveData


class DataGone(Conflict):
    """The dataset of this job was deleted."""

    code = "data_gone"


def datasets_used(spec: object) -> tuple[str, ...]:
    """The ids of the uploaded datasets that a resolved spec is pinned to."""
    data = getattr(spec, "data", None)
    return (data.dataset,) if isinstance(data, Dataset) else ()


def record_use(connection: Connection, project: str | None, job_id: str, datasets: Sequence[str]) -> None:
    """Write that the job uses these datasets, which cannot be deleted before it has ended.

    Raises:
        DataGone: one of them is no dataset of the project (any more).
    """
    for dataset_id in datasets:
        require_data(connection, project, dataset_id)
        connection.execute(insert(job_dataset).values(job_id=job_id, dataset_id=dataset_id))


def live_users(connection: Connection, dataset_id: str) -> list[str]:
    """The jobs that use this dataset and have not ended."""
    ended = [status.value for status in TERMINAL]
    query = (
        select(job_dataset.c.job_id)
        .join(job_state, job_state.c.job_id == job_dataset.c.job_id)
        .where(job_dataset.c.dataset_id == dataset_id, job_state.c.status.not_in(ended))
        .order_by(job_dataset.c.job_id)
    )
    return list(connection.execute(query).scalars())


def find_dataset_manifest(db: Database, project: str, name_or_id: str) -> tuple[str, DatasetManifest]:
    """The id and the manifest of a ready dataset: the one of this id, or the newest of this name.

    Raises:
        InvalidSpec: the project has none, or it is not ready; the pointer is /data/dataset.
    """
    with db.read() as connection:
        return find_manifest(connection, project, name_or_id)


def find_manifest(connection: Connection, project: str, name_or_id: str) -> tuple[str, DatasetManifest]:
    """As `find_dataset_manifest`, in the caller's transaction."""
    row = dataset.c
    mine = select(row.id, row.manifest, row.status).where(row.project == project)
    by_id = is_id(name_or_id, ID_PREFIX)
    if by_id:
        query = mine.where(row.id == name_or_id)
    else:
        query = mine.where(row.name == name_or_id).order_by((row.status == "ready").desc(), row.id.desc()).limit(1)
    found = connection.execute(query).one_or_none()
    if found is None:
        message = f"there is no dataset of yours with this {'id' if by_id else 'name'}"
        raise InvalidSpec(errors=(FieldProblem("/data/dataset", message, "GET /v1/datasets lists them"),))
    if found.status != "ready":
        message = f"it is not ready: its status is {found.status}"
        raise InvalidSpec(errors=(FieldProblem("/data/dataset", message, f"GET /v1/datasets/{found.id} says more"),))
    return found.id, DatasetManifest.model_validate_json(found.manifest)


def data_resolver(db: Database, project: str) -> ResolveData:
    """The look-up for new jobs of this project: a name is pinned to its newest ready dataset."""

    def resolve(data: DataSpec) -> DataSpec:
        if not isinstance(data, Dataset):
            return data
        return resolve_dataset(data, *find_dataset_manifest(db, project, data.dataset))

    return resolve


def require_data(connection: Connection, project: str | None, dataset_id: str) -> None:
    """Hold the dataset until the end of the transaction. Raises DataGone where it is none of the project any more."""
    row = dataset.c
    held = select(row.id).where(row.id == dataset_id, row.project == project, row.status == "ready")
    if connection.execute(held.with_for_update(read=True)).first() is None:
        raise DataGone(f"The dataset {dataset_id} was deleted; upload it again, and submit a new job.")


def used_by(connection: Connection, datasets: Sequence[str]) -> dict[str, int]:
    """Dataset id -> how many jobs that are not deleted use it."""
    query = (
        select(job_dataset.c.dataset_id, job_dataset.c.job_id)
        .join(job, job.c.id == job_dataset.c.job_id)
        .where(job_dataset.c.dataset_id.in_(datasets), job.c.project != "")
    )
    counts = dict.fromkeys(datasets, 0)
    for dataset_id, _ in connection.execute(query):
        counts[dataset_id] += 1
    return counts
