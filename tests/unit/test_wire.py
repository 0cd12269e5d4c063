"""Frames: whole ones come out whatever the pieces they come in, and a broken peer is noticed."""

import json
import math
import socket
import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker import wire

FIELDS = st.dictionaries(st.text(min_size=1), st.integers() | st.text() | st.lists(st.floats(allow_nan=False)))


def framed(payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + payload


def test_a_frame_is_its_length_and_json() -> None:
    frame = wire.pack_frame("progress", "job_1", {"step": 7})
    assert frame[:4] == b"\x00\x00\x00\x2f"
    assert json.loads(frame[4:]) == {"type": "progress", "job": "job_1", "step": 7}
    assert wire.type_of(frame[4:]) == "progress"


@given(st.lists(FIELDS, max_size=5), st.lists(st.integers(0, 400), max_size=8))
def test_any_cut_gives_the_same_frames(bodies: list[dict[str, object]], cuts: list[int]) -> None:
    safe = [{f"x{name}": value for name, value in body.items()} for body in bodies]
    stream = b"".join(wire.pack_frame("log", "j", body) for body in safe)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    splitter, found = wire.FrameSplitter(), []
    for start, end in pairwise(edges):
        found += [wire.unpack_payload(payload) for payload in splitter.feed_bytes(stream[start:end])]
    assert found == [{"type": "log", "job": "j", **body} for body in safe]


def test_values_that_json_does_not_know_survive() -> None:
    values = wire.unpack_payload(wire.pack_frame("points", "j", {"values": [math.nan, math.inf, -math.inf, 0.1]})[4:])[
        "values"
    ]
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf, 0.1]


@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b"nonsense", b'{"job": "j"}', b'{"type": 3}', b"\xff"])
def test_what_is_no_frame_is_refused(payload: bytes) -> None:
    with pytest.raises(wire.BadFrame):
        wire.unpack_payload(payload)
    with pytest.raises(wire.BadFrame):
        wire.type_of(payload)


def test_a_length_of_gigabytes_is_refused_before_anything_is_read() -> None:
    with pytest.raises(wire.BadFrame, match="4294967295"):
        list(wire.FrameSplitter().feed_bytes(b"\xff\xff\xff\xff"))


def test_the_end_in_the_middle_of_a_frame_is_an_end() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        theirs.sendall(framed(b'{"type": "stop"}') + framed(b'{"type": "stop"}')[:-3])
        theirs.close()
        assert wire.receive_frame(ours) == {"type": "stop"}
        assert wire.receive_frame(ours) is None


def test_a_burst_is_gathered_and_nothing_is_forgotten() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        writer = wire.FrameWriter(ours)
        writer.write(b"first ", urgent=False)  # nothing was sent for long: at once
        assert theirs.recv(100) == b"first "
        writer.write(b"second ", urgent=False)
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(100)
        writer.write(b"third", urgent=True)
        assert theirs.recv(100) == b"second third"
        writer.write(b"rest", urgent=False)
        writer.flush_if_idle()
        assert theirs.recv(100) == b"rest"
