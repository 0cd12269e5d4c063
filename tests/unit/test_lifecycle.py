"""The table of transitions, written out a second time by hand."""

import itertools

import pytest

from core.lifecycle import (
    TERMINAL,
    TRANSITIONS,
    Desired,
    IllegalTransition,
    Status,
    Verb,
    check_transition,
    desired_after,
    displayed_status,
    settled_status,
)

ALLOWED = {
    ("queued", "running"),
    ("queued", "paused"),
    ("queued", "cancelled"),
    ("running", "queued"),
    ("running", "paused"),
    ("running", "succeeded"),
    ("running", "failed"),
    ("running", "cancelled"),
    ("paused", "queued"),
    ("paused", "cancelled"),
}


@pytest.mark.parametrize(("old", "new"), list(itertools.product(Status, Status)))
def test_only_the_listed_transitions_are_allowed(old: Status, new: Status) -> None:
    if (old, new) in ALLOWED:
        check_transition(old, new)
    else:
        with pytest.raises(IllegalTransition):
            check_transition(old, new)


def test_terminal_is_final() -> None:
    assert {status for status in Status if not TRANSITIONS[status]} == TERMINAL == {"succeeded", "failed", "cancelled"}


@pytest.mark.parametrize(
    ("status", "desired", "verb", "expected"),
    [
        # cancel: from anywhere alive, and again; of what has ended only the cancelled
        ("queued", "run", "cancel", "cancel"),
        ("running", "run", "cancel", "cancel"),
        ("running", "pause", "cancel", "cancel"),
        ("running", "cancel", "cancel", "cancel"),
        ("paused", "pause", "cancel", "cancel"),
        ("cancelled", "cancel", "cancel", "cancel"),
        ("succeeded", "run", "cancel", None),
        ("succeeded", "cancel", "cancel", None),
        ("failed", "run", "cancel", None),
        # pause and resume: while alive and not on the way out
        ("queued", "run", "pause", "pause"),
        ("running", "pause", "pause", "pause"),
        ("paused", "pause", "pause", "pause"),
        ("running", "cancel", "pause", None),
        ("cancelled", "cancel", "pause", None),
        ("paused", "pause", "resume", "run"),
        ("running", "pause", "resume", "run"),
        ("running", "run", "resume", "run"),
        ("paused", "cancel", "resume", None),
        ("succeeded", "run", "resume", None),
    ],
)
def test_what_a_verb_wants(status: str, desired: str, verb: str, expected: str | None) -> None:
    assert desired_after(Status(status), Desired(desired), Verb(verb)) == expected


def test_saying_it_twice_is_the_same() -> None:
    for status, desired, verb in itertools.product(Status, Desired, Verb):
        once = desired_after(status, desired, verb)
        if once is not None:
            assert desired_after(status, once, verb) is once


@pytest.mark.parametrize(("status", "desired"), list(itertools.product(Status, Desired)))
def test_wishes_settle_only_where_nobody_runs(status: Status, desired: Desired) -> None:
    rest = {"run": "queued", "pause": "paused", "cancel": "cancelled"}[desired]
    expected = rest if status in {"queued", "paused"} and rest != status else None
    assert settled_status(status, desired) == expected
    if expected is not None:
        check_transition(status, Status(expected))


def test_what_users_read() -> None:
    table = {
        (status.value, desired.value): displayed_status(status, desired) for status in Status for desired in Desired
    }
    assert {pair: word for pair, word in table.items() if pair[0] != word} == {
        ("queued", "pause"): "pausing",
        ("queued", "cancel"): "cancelling",
        ("running", "pause"): "pausing",
        ("running", "cancel"): "cancelling",
        ("paused", "cancel"): "cancelling",
    }
