"""A job's events as they happen: a stream that resumes after the last received event when it breaks."""

import json
import time
from collections.abc import Iterator, Sequence

import httpx2
from pydantic import ValidationError

from basin.errors import BadAnswer, Unreachable
from basin.shapes import TERMINAL, Event
from basin.transport import LONGEST_PAUSE, Transport, describe_error, raise_for_problem, retry_delay, without_none

SILENCE = 40.0  # seconds without a byte after which a stream counts as broken; the service pings every 15
STEADY = 5.0  # a stream that lasted this long was healthy: `patience` starts again
AWAY = frozenset({502, 503, 504})
MEDIA_TYPE = "text/event-stream"


def stream(
    transport: Transport, path: str, *, types: Sequence[str] | None, after: str | None, patience: float
) -> Iterator[Event]:
    """Each event once, until the one that ends the job. Raises Unreachable after `patience` s without an answer."""
    last, tried, good_at = after, 0, time.monotonic()
    while True:
        broken, began = "it ended the stream", time.monotonic()
        try:
            for event in _read_connection(transport, path, types, last):
                if event is None:
                    return
                last, tried, good_at = event.cursor, 0, time.monotonic()
                yield event
                if event.type == "status" and event.data.get("status") in TERMINAL:
                    return
        except httpx2.TimeoutException as error:
            broken = describe_error(error)
        except httpx2.TransportError as error:
            broken, good_at = describe_error(error), last_seen_at(good_at, began)
        else:
            good_at = last_seen_at(good_at, began)
        if time.monotonic() - good_at > patience:
            raise Unreachable(transport.url, broken)
        time.sleep(min(retry_delay(min(tried, 6), None), LONGEST_PAUSE))
        tried += 1


def last_seen_at(good_at: float, began: float) -> float:
    """When the service was last known to answer: pings of an idle stream are not events, so its duration counts."""
    return time.monotonic() if time.monotonic() - began > STEADY else good_at


def _read_connection(
    transport: Transport, path: str, types: Sequence[str] | None, last: str | None
) -> Iterator[Event | None]:
    """The events of one connection; None when the job has ended and nothing is left."""
    headers = {"Accept": MEDIA_TYPE} | ({"Last-Event-ID": last} if last else {})
    params = without_none({"types": ",".join(types) if types else None})
    timeout = httpx2.Timeout(SILENCE, connect=3.0)
    with transport.http.stream("GET", path, params=params, headers=headers, timeout=timeout) as answer:
        if answer.status_code in AWAY:
            return
        if answer.status_code >= httpx2.codes.BAD_REQUEST:
            answer.read()
        raise_for_problem(answer)
        if answer.status_code == httpx2.codes.NO_CONTENT:
            yield None
            return
        if answer.headers.get("Content-Type", "").partition(";")[0].strip() != MEDIA_TYPE:
            raise BadAnswer(f"{answer.request.url} is not an event stream; is this Basin, and a recent release?")
        for sent in httpx2.EventSource(answer, max_event_size=None):
            if sent.data:
                yield _parse_event(sent)


def _parse_event(sent: httpx2.ServerSentEvent) -> Event:
    try:
        return Event.read(json.loads(sent.data) | {"cursor": sent.id})
    except (ValueError, TypeError, ValidationError) as error:
        raise BadAnswer(f"an event of type {sent.event!r} cannot be read; is this Basin?") from error
