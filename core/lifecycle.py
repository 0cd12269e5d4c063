"""The states of a job, the one table of allowed transitions, and the effect of each verb. Pure."""

from enum import StrEnum
from typing import Final


class Status(StrEnum):
    """The status of a job. The database stores exactly these values."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Desired(StrEnum):
    """The state of a job that its owner requested last."""

    RUN = "run"
    PAUSE = "pause"
    CANCEL = "cancel"


class Verb(StrEnum):
    """The commands that an owner can give to a job."""

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"


LIGHT: Final = "light"
"""What a job needs that runs beside the slots: the light lane of a worker. Other jobs need a slot: cpu, gpu or any."""

TERMINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})

TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.RUNNING, Status.PAUSED, Status.CANCELLED}),
    Status.RUNNING: frozenset(
        {Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.PAUSED, Status.QUEUED},
    ),
    Status.PAUSED: frozenset({Status.QUEUED, Status.CANCELLED}),
    Status.SUCCEEDED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}

_VERBS = {Verb.CANCEL: Desired.CANCEL, Verb.PAUSE: Desired.PAUSE, Verb.RESUME: Desired.RUN}


class IllegalTransition(Exception):  # noqa: N818 - a bug in our own code, named after what it forbids
    """A job was about to change its status in a way the table does not allow."""


def check_transition(old: Status, new: Status) -> None:
    """Raise IllegalTransition unless the table allows old -> new."""
    if new not in TRANSITIONS[old]:
        raise IllegalTransition(f"{old} -> {new}")


def desired_after(status: Status, desired: Desired, verb: Verb) -> Desired | None:
    """The desired state after `verb`, or None where the verb is not allowed any more.

    Verbs are idempotent. A cancel cannot be undone. Of the jobs that have ended, only a cancelled one accepts a cancel.
    """
    if status in TERMINAL:
        return Desired.CANCEL if (status, verb) == (Status.CANCELLED, Verb.CANCEL) else None
    if desired is Desired.CANCEL and verb is not Verb.CANCEL:
        return None
    return _VERBS[verb]


def settled_status(status: Status, desired: Desired) -> Status | None:
    """The status that `desired` gives to a job that no worker runs, or None where the job has it already."""
    if status not in {Status.QUEUED, Status.PAUSED}:
        return None
    target = {Desired.RUN: Status.QUEUED, Desired.PAUSE: Status.PAUSED, Desired.CANCEL: Status.CANCELLED}[desired]
    return None if target is status else target


def displayed_status(status: Status, desired: Desired) -> str:
    """The status that users read: a request that is not carried out yet shows as pausing or cancelling."""
    if status in TERMINAL:
        return status.value
    if desired is Desired.CANCEL:
        return "cancelling"
    if desired is Desired.PAUSE and status is not Status.PAUSED:
        return "pausing"
    return status.value
