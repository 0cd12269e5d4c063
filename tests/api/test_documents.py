"""JSON in and out, and the PING that asks for a broker."""

import json
import math
import socket
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.json_documents import (
    DEEPEST,
    MOST_KEYS,
    MOST_VALUES,
    MalformedError,
    format_timestamp,
    parse_json,
    render_json,
)
from api.middleware import MAX_BODY
from api.probes import broker_answers
from core.errors import InvalidRequest
from tests.support.broker import Broker

Texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
Documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | Texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(Texts, inner, max_size=5),
    max_leaves=20,
)


@given(Documents)
def test_what_is_written_is_read_again(document: object) -> None:
    assert parse_json(render_json(document)) == document


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        document = parse_json(raw)
    except (MalformedError, InvalidRequest):
        return
    assert json.loads(raw) == document


def test_what_is_no_number_is_written_as_a_word() -> None:
    value = {"a": [math.nan, -math.inf], "b": {"c": (math.inf, 1.5)}, "d": "NaN", "e": "é"}
    written = render_json(value).decode()
    assert written == '{"a":["NaN","-Infinity"],"b":{"c":["Infinity",1.5]},"d":"NaN","e":"é"}'


def test_a_lone_surrogate_does_not_break_an_answer() -> None:
    assert render_json({"detail": "a\ud800"}) == b'{"detail":"a?"}'


def test_times_are_utc_to_the_millisecond() -> None:
    """1767225600 is 2026-01-01T00:00:00Z: 20,454 days of 86,400 s."""
    assert format_timestamp(1767225600.0) == "2026-01-01T00:00:00.000Z"
    assert format_timestamp(1767225600.0625) == "2026-01-01T00:00:00.062Z"
    assert format_timestamp(None) is None


FULL = MAX_BODY // 3  # times three bytes are a body of the largest size
GREEDY = {
    "lists": b"[" + b"[]," * (FULL - 1) + b"0]",
    "objects": b"[" + b"{}," * (FULL - 1) + b"0]",
    "numbers": b"[" + b"1e5," * (MAX_BODY // 4 - 1) + b"0]",
    "keys": b"{" + b",".join(b'"%d":0' % number for number in range(MAX_BODY // 11)) + b"}",
    "depth": b'{"":' * (MAX_BODY // 4),
    "escapes": b'["' + b"\\u00e9" * (MAX_BODY // 6 - 2) + b'\\u0000"]',
}


@pytest.mark.parametrize("name", GREEDY)
def test_no_body_takes_more_than_fifty_megabytes(name: str) -> None:
    """However its megabyte is spent: it is refused, and what reading it took is given back."""
    tracemalloc.start()
    try:
        with pytest.raises((MalformedError, InvalidRequest)):
            parse_json(GREEDY[name])
        left, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50e6
    assert left < 1e6


def test_the_bounds_hold_exactly() -> None:
    assert parse_json(b"[" + b"0," * (MOST_VALUES - 2) + b"0]")
    keys = ",".join(f'"k{i}":0' for i in range(MOST_KEYS))
    assert parse_json(f"{{{keys}}}".encode())
    assert parse_json(b"[" * DEEPEST + b"]" * DEEPEST)
    for raw in (
        b"[" + b"0," * (MOST_VALUES - 1) + b"0]",
        f'{{"more":0,{keys}}}'.encode(),
        b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1),
    ):
        with pytest.raises(MalformedError):
            parse_json(raw)


@contextmanager
def answering(reply: bytes) -> Iterator[str]:
    """A server that says `reply` to whoever comes, once."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with closing(connection):
                connection.recv(100)
                connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"redis://:secret@127.0.0.1:{server.getsockname()[1]}/0"
        thread.join()


def test_a_broker_that_answers_is_there(broker: Broker) -> None:
    assert broker_answers(broker.url)


def test_a_broker_that_wants_a_password_is_there() -> None:
    with answering(b"-NOAUTH Authentication required.\r\n") as url:
        assert broker_answers(url)


def test_something_else_is_no_broker(tmp_path: Path) -> None:
    with answering(b"HTTP/1.1 400 Bad Request\r\n") as url:
        assert not broker_answers(url)
    with answering(b"") as url:
        assert not broker_answers(url)
    with socket.create_server(("127.0.0.1", 0)) as hung:  # accepts, and never says a word
        assert not broker_answers(f"redis://127.0.0.1:{hung.getsockname()[1]}")
    for url in (
        f"redis+socket://{tmp_path}/none.sock",
        "redis://127.0.0.1:1",
        "redis://127.0.0.1:x",
        "amqp://",
        "rediss://[",
    ):
        assert not broker_answers(url), url
