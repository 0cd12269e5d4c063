"""The backlog: everything comes out once and in order, wherever it lay."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.backlog import Backlog

pwrite = os.pwrite


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Give the disk so many bytes of room; None: as many as there are."""
    room: list[int | None] = [None]

    def limited(file: int, content: memoryview, at: int) -> int:
        if room[0] is None:
            return pwrite(file, content, at)
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = pwrite(file, content[: room[0]], at)
        room[0] -= written
        return written

    monkeypatch.setattr("worker.backlog.os.pwrite", limited)
    return lambda left: room.__setitem__(0, left)


@given(st.lists(st.one_of(st.binary(max_size=30), st.none()), max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_first_in_first_out(tmp_path: Path, deeds: list[bytes | None]) -> None:
    """Bytes are put, None takes one; the memory holds so little that most of it goes through the file."""
    backlog, waiting = Backlog(tmp_path / "spill", memory_bytes=40), list[bytes]()
    for deed in deeds:
        if deed is None:
            assert backlog.get(0.0) == (waiting.pop(0) if waiting else None)
        else:
            backlog.put(deed)
            waiting.append(deed)
    backlog.close()
    while waiting:
        assert not backlog.ended
        assert backlog.get(0.0) == waiting.pop(0)
    assert backlog.ended
    assert backlog.get(0.0) is None
    backlog.discard_all()


def test_it_is_full_when_the_file_is(tmp_path: Path) -> None:
    backlog = Backlog(tmp_path / "spill", memory_bytes=4, disk_bytes=20)
    backlog.put(b"1234")
    states = [backlog.full]
    backlog.put(b"x" * 30)
    states.append(backlog.full)
    assert [backlog.get(0.0), backlog.get(0.0)] == [b"1234", b"x" * 30]
    states.append(backlog.full)
    assert states == [False, True, False]
    backlog.discard_all()


def test_the_files_of_checkpoints_count_but_for_those_on_their_way(tmp_path: Path) -> None:
    backlog = Backlog(tmp_path / "spill", disk_bytes=100)
    backlog.put(b"first", 500)
    states = [backlog.full]
    backlog.put(b"second", 99)
    backlog.put(b"points")
    states.append(backlog.full)
    backlog.put(b"third", 1)
    states.append(backlog.full)
    backlog.get(0.0)
    states.append(backlog.full)
    backlog.release_files()
    states.append(backlog.full)
    assert states == [False, False, True, True, False]


def test_whoever_waits_is_woken(tmp_path: Path) -> None:
    backlog, found = Backlog(tmp_path / "spill"), list[bytes | None]()
    taker = threading.Thread(target=lambda: found.extend((backlog.get(30.0), backlog.get(30.0))))
    taker.start()
    backlog.put(b"a")
    backlog.close()
    taker.join(10.0)
    assert found == [b"a", None]


def test_what_is_discarded_is_gone(tmp_path: Path) -> None:
    backlog = Backlog(tmp_path / "spill", memory_bytes=1)
    backlog.put(b"abc")
    backlog.discard_all()
    assert backlog.ended
    assert backlog.get(0.0) is None


def test_a_full_disk_holds_the_reader_back_and_loses_nothing(
    tmp_path: Path, disk: Callable[[int | None], None]
) -> None:
    """It fills up in the middle of a payload; what had been read from the pipe by then waits in memory."""
    backlog, said = Backlog(tmp_path / "spill", memory_bytes=5), [b"%05d" % number for number in range(8)]
    disk(20)
    for payload in said[:4]:
        backlog.put(payload)
    assert backlog.full
    assert [backlog.get(0.0) for _ in range(3)] == said[:3]
    backlog.put(said[4])
    assert backlog.full
    disk(None)
    assert not backlog.full
    for payload in said[5:]:
        backlog.put(payload)
    assert [backlog.get(0.0) for _ in range(5)] == said[3:]
    backlog.close()
    assert backlog.ended
    backlog.discard_all()


def test_a_disk_that_stays_full_is_not_needed(tmp_path: Path, disk: Callable[[int | None], None]) -> None:
    backlog = Backlog(tmp_path / "spill", memory_bytes=1)
    disk(0)
    backlog.put(b"abc")
    backlog.put(b"def")
    backlog.close()
    assert not backlog.ended
    assert [backlog.get(0.0), backlog.get(0.0)] == [b"abc", b"def"]
    assert (backlog.full, backlog.ended) == (False, True)
    backlog.discard_all()


def test_a_spill_that_was_cut_short_is_the_machines_failure(tmp_path: Path) -> None:
    backlog = Backlog(tmp_path / "spill", memory_bytes=1)
    backlog.put(b"abc")
    os.truncate(tmp_path / "spill", 5)
    with pytest.raises(OSError, match="shorter than what was written") as failure:
        backlog.get(0.0)
    assert failure.value.errno == errno.EIO
    backlog.discard_all()
