"""Server-sent events: the encoding of a page of the feed, and the response that sends it."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from api.json_documents import format_timestamp, render_json
from api.live_poller import LivePoller
from core.jobs.events.feed import FeedItem, FeedPage, FeedQuery

LONGEST_SECONDS = 3600.0  # then the reader has to reconnect
RETRY: Final = b"retry: 1000\n\n"  # milliseconds; sent first, so that a reader sees the stream begin
HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Vary": "Accept"}

Admitted = Callable[[], Awaitable[bool]]
_log = logging.getLogger("basin.api")


def event_document(item: FeedItem) -> dict[str, object]:
    """An event as the API shows it, in lists and in streams."""
    return {
        "id": None if item.id is None else str(item.id),
        "object": "event",
        "type": item.type,
        "attempt": item.attempt,
        "at": format_timestamp(item.at),
        "data": _metrics_document(item.data) if item.type == "metrics" else item.data,
    }


def _metrics_document(data: dict[str, Any]) -> dict[str, Any]:
    return {
        "series": {
            name: piece | {"times": [format_timestamp(time) for time in piece["times"]]}
            for name, piece in data["series"].items()
        }
    }


def encode_page(found: FeedPage) -> bytes:
    """A page of the feed as bytes. The id of each event is the cursor after it."""
    return b"".join(
        format_sse_event(data_str=render_json(event_document(item)).decode(), event=item.type, id=str(item.cursor))
        for item in found.items
    )


class EventStream(EventSourceResponse):
    """Sends new events to one reader until the job has ended, the reader is gone, or its key is no longer valid."""

    def __init__(self, live: LivePoller, project: str, ask: FeedQuery, admitted: Admitted) -> None:
        """The stream counts against the project's limit from the start of the response to its end."""
        self._frames = _stream_frames(live, ask, admitted)
        super().__init__(self._frames, headers=HEADERS)
        self._live, self._project = live, project

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._live.reserve_place(self._project):  # before the first byte: 429 can still be sent
            await super().__call__(scope, receive, send)

    async def stream_response(self, send: Send) -> None:
        slow_seconds = self._live.pace.slow_seconds

        async def send_with_timeout(message: Message) -> None:
            async with asyncio.timeout(slow_seconds):
                await send(message)

        async with contextlib.aclosing(self._frames):
            try:
                await super().stream_response(send_with_timeout)
            except TimeoutError:
                _log.warning("a reader that took nothing for %.0f s is dropped", slow_seconds)
                raise ClientDisconnect from None


async def _stream_frames(live: LivePoller, ask: FeedQuery, admitted: Admitted) -> AsyncGenerator[bytes]:
    clock, pace = asyncio.get_running_loop().time, live.pace
    spoke = checked = clock()
    until = spoke + LONGEST_SECONDS

    async def is_over() -> bool:
        nonlocal checked
        if clock() < checked + pace.check_seconds:
            return False
        checked = clock()
        return checked > until or not await admitted()

    version: int | None = None
    yield RETRY
    while not await is_over():
        with live.open_subscription(ask, version) as pending:
            while not await pending.answered_within(min(pace.ping_seconds, pace.check_seconds)):
                if await is_over():
                    return
                if clock() >= spoke + pace.ping_seconds:
                    spoke = clock()
                    yield KEEPALIVE_COMMENT
        update = pending.done.result()
        if update is None:
            return
        if update.body:
            spoke = clock()
            yield update.body
        if update.page.ended:
            return
        ask = replace(ask, cursor=update.page.cursor)
        version = None if update.page.more else update.page.version
