"""The service's answers as read-only objects. Fields that the client uses are typed; all other fields are kept."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationInfo, field_validator

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})


class Shape(BaseModel):
    """A JSON object of the service. Additional fields of a newer service are kept unchanged."""

    model_config = ConfigDict(extra="allow", frozen=True)

    _raw: dict[str, Any] = PrivateAttr(default_factory=dict)

    @classmethod
    def read(cls, body: dict[str, Any]) -> Self:
        """The object in a service's answer; raises pydantic's ValidationError when it does not fit."""
        made = cls.model_validate(body)
        made._raw = body  # noqa: SLF001 - set before the object is returned
        return made

    def raw(self) -> dict[str, Any]:
        """The object exactly as received, ready for json.dumps."""
        return self._raw


Item = TypeVar("Item", bound=Shape)


class Progress(Shape):
    step: int = 0
    steps: int | None = None
    epoch: float | None = None
    epochs: float | None = None
    fraction: float | None = None
    eta_seconds: float | None = None
    loss: float | None = None
    lr: float | None = None
    metrics: dict[str, Any] = {}


class Queue(Shape):
    position: int | None = None
    ahead: int | None = None
    eta_seconds: float | None = None


class Failure(Shape):
    code: str = ""
    message: str = ""
    remedy: str | None = None


class Warned(Shape):
    """A warning: a setting that is valid but probably unintended."""

    code: str = ""
    pointer: str = ""
    message: str = ""


class Job(Shape):
    """One job. The fields of its recipe are attributes too, with all defaults: `job.optimizer`, `job.epochs` …

    `results` maps weights -> split -> metric -> value.
    """

    id: str
    status: str
    name: str | None = None
    status_detail: str | None = None
    attempt: int = 0
    progress: Progress = Progress()
    queue: Queue | None = None
    results: dict[str, Any] | None = None
    stop_reason: str | None = None
    error: Failure | None = None
    warnings: tuple[Warned, ...] = ()
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def finished(self) -> bool:
        """Whether the status is terminal."""
        return self.status in TERMINAL


class Analysis(Job):
    """One analysis. Its subjects and options are attributes too: `analysis.subjects`, `analysis.steps` …

    `results` are its numbers, `pictures` the paths of its pictures by name; lists leave both out.
    """

    kind: str
    subjects: tuple[dict[str, Any], ...] = ()
    pictures: dict[str, str] = {}


class Event(Shape):
    """An event of a job. `type` (status, checkpoint, log, warning, progress or metrics) determines the content of
    `data`. `cursor` is the position after the event: a stream or a list can continue from it.
    """

    type: str
    id: str | None = None
    attempt: int = 0
    at: datetime | None = None
    data: dict[str, Any] = {}
    cursor: str = ""


class Listed(Shape, Generic[Item]):
    """One page of a list. `data` and `last_id`, which goes into `after` for the next page, are of this page.

    Iteration yields the items of this page. On a page from a call without a limit it then requests the next pages, one
    at a time, and yields their items.
    """

    data: tuple[Item, ...] = ()
    has_more: bool = False
    last_id: str | None = None

    _next_page: Callable[[str], Self] | None = PrivateAttr(default=None)

    def continued(self, next_page: Callable[[str], Self]) -> Self:
        """This page; iteration past its end calls `next_page` with `last_id` for the next page."""
        self._next_page = next_page
        return self

    def __iter__(self) -> Iterator[Item]:  # type: ignore[override] # pydantic's iterates over fields
        page = self
        yield from page.data
        while page.has_more and page.last_id and page._next_page:
            page = page._next_page(page.last_id)
            yield from page.data


class Page(Listed[Job]):
    """Jobs, newest first unless asked otherwise."""


class Analyses(Listed[Analysis]):
    """Analyses, newest first unless asked otherwise."""


class Slots(Shape):
    slots: int = 0
    free: int = 0


class Gpu(Shape):
    """A GPU of a worker: `in_service`, or `out_of_service` for the `reason`. `device`: its UUID, if it has one."""

    device: str
    status: str = ""
    name: str | None = None
    memory_bytes: int | None = None
    reason: str | None = None
    detail: str | None = None
    since: datetime | None = None


class Project(Shape):
    """The owner of jobs and keys: a key has access to the jobs of its own project only."""

    name: str
    created_at: datetime | None = None
    created_by: str = ""


class Worker(Shape):
    """A worker: `live`, or `lost` when its heartbeat is overdue. `jobs` are those of your jobs that it runs."""

    id: str
    status: str
    host: str = ""
    pid: int = 0
    release: str = ""
    slots: dict[str, Slots] = {}
    devices: tuple[Gpu, ...] = ()
    jobs: tuple[str, ...] = ()
    started_at: datetime | None = None
    seen_at: datetime | None = None


class Reason(Shape):
    code: str = ""
    message: str = ""


class WaitingJob(Shape):
    """A queued job. `eta_seconds` is the estimated time until it starts."""

    id: str
    name: str | None = None
    priority: int = 0
    needs: str = ""
    position: int | None = None
    reason: Reason = Reason()
    eta_seconds: float | None = None


class Queued(Shape):
    """Your queued jobs. `waiting` is the number of all of them, also of those that are not in `data`."""

    waiting: int = 0
    slots: dict[str, Slots] = {}
    data: tuple[WaitingJob, ...] = ()


class Column(Shape):
    """A column of a table: `kind` is number, category, boolean, date or text."""

    name: str
    kind: str = ""
    missing: int = 0
    classes: int | None = None
    min: float | None = None
    max: float | None = None
    mean: float | None = None


class DatasetError(Shape):
    """Why a file was refused: the place and the cause."""

    file: str | None = None
    row: int | None = None
    column: str | None = None
    code: str = ""
    detail: str = ""


class Dataset(Shape):
    """One dataset: an immutable content. `status` is uploading, queued, preparing, ready, refused, failed or cancelled.

    `columns` are those of a table, `classes` maps the classes of images and arrays to their numbers of examples; both
    are empty in lists. `errors` say why a file was refused, `error` why its preparation failed.
    """

    id: str
    status: str
    name: str | None = None
    version: str | None = None
    format: str | None = None
    kind: str | None = None
    examples: int | None = None
    bytes: int | None = None
    stored_bytes: int | None = None
    columns: tuple[Column, ...] = ()
    classes: dict[str, int] = {}
    warnings: tuple[str, ...] = ()
    errors: tuple[DatasetError, ...] = ()
    error: Failure | None = None
    progress: dict[str, Any] | None = None
    used_by: int = 0
    created_at: datetime | None = None

    @field_validator("columns", "classes", mode="before")
    @classmethod
    def _read_null(cls, value: Any, about: ValidationInfo) -> Any:
        """Null, which the service answers where there is none, is empty."""
        return cls.model_fields[about.field_name or ""].default if value is None else value


class DatasetPage(Listed[Dataset]):
    """Datasets, newest first."""


class Series(Shape):
    """One measured series: values at steps; `times` are when they were measured."""

    steps: tuple[float, ...] = ()
    values: tuple[float | None, ...] = ()
    times: tuple[Any, ...] = ()


class Checkpoint(Shape):
    """Weights of a job. `sha256` and `bytes` are those of the content that the service sends.

    `superseded`: another checkpoint has replaced it; only its pin keeps it.
    """

    id: str
    kind: str
    step: int = 0
    epoch: float | None = None
    bytes: int | None = None
    sha256: str | None = None
    metrics: dict[str, Any] = {}
    pinned: bool = False
    superseded: bool = False
