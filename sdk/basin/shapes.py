"""What the service answers, as thin read-only objects: the fields used here are typed, whatever else came is kept."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, PrivateAttr

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})


class Shape(BaseModel):
    """A JSON object of the service. Newer services may send more fields: they are kept as they came."""

    model_config = ConfigDict(extra="allow", frozen=True)

    _raw: dict[str, Any] = PrivateAttr(default_factory=dict)

    @classmethod
    def read(cls, body: dict[str, Any]) -> Self:
        """The object in a service's answer; raises pydantic's ValidationError when it is another one."""
        made = cls.model_validate(body)
        made._raw = body  # noqa: SLF001 - our own, before anybody sees it
        return made

    def raw(self) -> dict[str, Any]:
        """The object exactly as it came, ready for json.dumps."""
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
    """Something that is allowed and probably not meant."""

    code: str = ""
    pointer: str = ""
    message: str = ""


class Job(Shape):
    """One job. Its recipe's fields stand beside these, every default filled in: `job.optimizer`, `job.epochs` …

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
        """Whether the status is one that never changes again."""
        return self.status in TERMINAL


class Analysis(Job):
    """One analysis. What it looks at and its options stand beside these: `analysis.subjects`, `analysis.steps` …

    `results` are its numbers, `pictures` the paths of its pictures by name; lists leave both out.
    """

    kind: str
    subjects: tuple[dict[str, Any], ...] = ()
    pictures: dict[str, str] = {}


class Event(Shape):
    """Something that happened to a job. `type` says what `data` holds: status, checkpoint, log, warning, progress
    or metrics. `cursor` is the place behind it: a stream or a list goes on from there.
    """

    type: str
    id: str | None = None
    attempt: int = 0
    at: datetime | None = None
    data: dict[str, Any] = {}
    cursor: str = ""


class Listed(Shape, Generic[Item]):
    """One page of a list. `data` and `last_id`, which goes into `after` for the next page, are of this page.

    Who iterates gets one by one what is on this page, and then on those behind it as they are asked for, where the page
    knows how to ask: the one that a call without a limit gave.
    """

    data: tuple[Item, ...] = ()
    has_more: bool = False
    last_id: str | None = None

    _behind: Callable[[str], Self] | None = PrivateAttr(default=None)

    def continued(self, behind: Callable[[str], Self]) -> Self:
        """This page, which asks for the one behind an id when somebody iterates so far."""
        self._behind = behind
        return self

    def __iter__(self) -> Iterator[Item]:  # type: ignore[override] # a model gives its fields, which nobody wants here
        page = self
        yield from page.data
        while page.has_more and page.last_id and page._behind:
            page = page._behind(page.last_id)
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
    """What jobs and keys belong to: a key sees those of its own project only."""

    name: str
    created_at: datetime | None = None
    created_by: str = ""


class Worker(Shape):
    """A worker: `live`, or `lost` when it has been silent for too long. `jobs` are those of yours that it runs."""

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
    """A queued job; `eta_seconds` is a guess when it starts."""

    id: str
    name: str | None = None
    priority: int = 0
    needs: str = ""
    position: int | None = None
    reason: Reason = Reason()
    eta_seconds: float | None = None


class Queued(Shape):
    """Your queued jobs; `waiting` counts those that are not in `data` too."""

    waiting: int = 0
    slots: dict[str, Slots] = {}
    data: tuple[WaitingJob, ...] = ()


class Series(Shape):
    """One measured series: values at steps; `times` are when they were measured."""

    steps: tuple[float, ...] = ()
    values: tuple[float | None, ...] = ()
    times: tuple[Any, ...] = ()


class Checkpoint(Shape):
    """Weights of a job. `sha256` and `bytes` are those of the content that the service sends.

    `superseded`: only its pin keeps it, another checkpoint has taken its place.
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
