"""How many datasets a project may have, and how many bytes they may have been when they were uploaded.

Each dataset counts with all of its bytes, also where it shares its objects with others: a quota shows no sharing.
"""

from sqlalchemy import Connection, func, select

from core.db.tables import dataset
from core.errors import QuotaExceeded, StorageFull
from core.jobs.queue.quotas import lock_project
from core.settings import Limits


def check_datasets(connection: Connection, project: str, limits: Limits, more: int, *, new: int = 1) -> None:
    """Let `new` datasets of `more` bytes together be added to those of this project.

    Raises:
        QuotaExceeded: the project would have too many datasets.
        StorageFull: they would have too many bytes.
    """
    if limits.datasets is None and limits.dataset_bytes is None:
        return
    lock_project(connection, project)
    size = func.coalesce(dataset.c.bytes, dataset.c.received)
    query = select(func.count(), func.coalesce(func.sum(size), 0)).where(dataset.c.project == project)
    number, used = connection.execute(query).one()
    if limits.datasets is not None and number + new > limits.datasets:
        message = f"There are {number} datasets, and this key may have {limits.datasets}; delete some."
        raise QuotaExceeded(message, extra={"limit": "datasets", "allowed": limits.datasets, "used": number})
    if limits.dataset_bytes is not None and used + more > limits.dataset_bytes:
        message = f"The datasets take {used:,} of {limits.dataset_bytes:,} bytes; delete some that you do not need."
        extra: dict[str, object] = {"limit": "dataset_bytes", "allowed": limits.dataset_bytes, "used": int(used)}
        raise StorageFull(message, extra=extra)
