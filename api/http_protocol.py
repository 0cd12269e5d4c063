"""uvicorn's HTTP/1.1 with bounds on unfinished requests: the size of the head, the number of headers, the time.

The parser receives the data in small pieces. Thus the protocol counts the bytes that the parser consumed without a
result (a head, trailers, the extensions of a chunk), and a client that sends requests faster than they are answered
fills a buffer with bytes, not with parsed requests.
"""

import asyncio
import logging
import secrets
from typing import Any, Final

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from api.errors import HttpError, error_response
from api.middleware import HEADERS, LINGER_BYTES, LINGER_SECONDS
from api.unfinished_requests import UnfinishedRequests
from core.errors import Unavailable

MOST_HEAD: Final = 64 * 1024  # bytes
MOST_HEADERS: Final = 100  # trailers included
MOST_PIPELINED: Final = 16  # requests that wait for the answer before theirs; what follows is not parsed
PIECE: Final = 4096

_log = logging.getLogger("basin.access")


class RequestProtocol(HttpToolsProtocol):
    """One connection. A request is due from its start, and again from the first byte of each later request."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        unfinished: UnfinishedRequests,
        header_seconds: float,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._unfinished = unfinished
        self._header_seconds = header_seconds
        self._peer = ""
        self._unread = bytearray()  # received, and not parsed yet
        self._swallowed = 0  # bytes that the parser consumed since its last callback
        self._moved = False  # whether the parser called back for the current piece
        self._header_lines = 0
        self._in_head = False
        self._in_body = False
        self._refusal: Exception | None = None
        self._thrown_away = 0
        self._owes: asyncio.TimerHandle | None = None
        self._lingers: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._peer = self.client[0] if self.client else ""
        self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_nothing()
        if self._lingers is not None:
            self._lingers.cancel()
        self._unread.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._refusal is None:
            self._unread += data
            self._parse_data()
            return
        self._thrown_away += len(data)
        if self._thrown_away > LINGER_BYTES:
            self.transport.close()

    def close_unfinished(self) -> None:
        """Close this connection because too many are unfinished. A response that is under way is sent first."""
        self._expect_nothing()
        if self._in_head:
            self._refuse_request(
                Unavailable("Too many connections wait with a part of a request; this one waited longest.")
            )
        if not self._is_answering():
            self.transport.close()

    # Callbacks of the parser.
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._header_lines = 0
        self._in_head = True
        self._expect_request()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_lines += 1
        if self._header_lines > MOST_HEADERS:
            raise ValueError("too many headers")  # ends the parser; `_parse_data` answers the client
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._in_head, self._in_body, self._moved = False, True, True
        self._expect_nothing()

    def on_body(self, body: bytes) -> None:
        self._moved = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body, self._moved = False, True
        self._expect_nothing()
        super().on_message_complete()

    # Callback of the response.
    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self._refusal is not None:
            self._send_refusal()
            return
        if self._in_body and self.cycle.response_complete:
            self._expect_request()  # the rest of its body is not read, so no other timeout applies
        self._parse_data()

    def _parse_data(self) -> None:
        while self._unread and self._refusal is None and len(self.pipeline) < MOST_PIPELINED:
            piece = bytes(self._unread[: min(PIECE, MOST_HEAD - self._swallowed)])
            del self._unread[: len(piece)]
            self._moved = False
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade:  # upgrades are not supported; what follows is not HTTP
                self._unread.clear()
            except httptools.HttpParserError:
                self._refuse_request(self._parse_error())
                return
            self._swallowed = 0 if self._moved else self._swallowed + len(piece)
            if self._swallowed >= MOST_HEAD:
                self._refuse_request(self._parse_error())
            elif self._swallowed and not self._in_body:
                self._expect_request()
        if self._unread:
            self.flow.pause_reading()

    def _parse_error(self) -> HttpError:
        if self._header_lines > MOST_HEADERS:
            return HttpError(431, "headers_too_large", f"The request has more than {MOST_HEADERS} headers.")
        if self._swallowed >= MOST_HEAD:
            return HttpError(431, "headers_too_large", f"The request's headers take more than {MOST_HEAD} bytes.")
        return HttpError(400, "malformed_http", "This is not an HTTP/1.1 request.")

    def _expect_request(self) -> None:
        if self._owes is None:
            self._owes = self.loop.call_later(self._header_seconds, self._on_timeout)
            self._unfinished.add(self, self._peer)

    def _expect_nothing(self) -> None:
        if self._owes is not None:
            self._owes.cancel()
            self._owes = None
            self._unfinished.remove(self, self._peer)

    def _on_timeout(self) -> None:
        self._expect_nothing()
        if self.flow.read_paused:  # the server does not read, so the client is not late
            self._expect_request()
        elif self._in_head:
            self._refuse_request(HttpError(408, "timeout", "The request's headers did not arrive in time."))
        else:
            self.transport.close()

    def _refuse_request(self, error: Exception) -> None:
        """Stop reading and send the error: now, or after the response that is under way."""
        self._refusal = error
        self._unread.clear()
        if not self._is_answering():
            self._send_refusal()
        elif self.pipeline or (self._in_body and self.cycle.response_started):
            self.transport.close()
        elif self._in_body:
            self.cycle.disconnected = True  # its body cannot be read, and its answer is this one
            self.cycle.message_event.set()
            self._send_refusal()

    def _is_answering(self) -> bool:
        cycle: Any = self.cycle  # None before the first request, whatever uvicorn's annotation says
        return cycle is not None and not cycle.response_complete

    def _send_refusal(self) -> None:
        """Send the refusal. What still arrives is discarded for a moment, as in api/middleware.py: otherwise a client
        that is still sending meets a reset connection before it reads the response.
        """
        request_id = secrets.token_hex(16)
        response = error_response(request_id, self._refusal or Unavailable())
        for name, value in {**HEADERS, "X-Request-ID": request_id, "Connection": "close"}.items():
            response.headers.setdefault(name, value)
        head = b"".join(name + b": " + value + b"\r\n" for name, value in response.raw_headers)
        self.transport.write(STATUS_LINE[response.status_code] + head + b"\r\n" + bytes(response.body))
        _log.info("refused unread %s", response.status_code, extra={"request_id": request_id})
        self._unset_keepalive_if_required()
        self._expect_nothing()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._lingers = self.loop.call_later(LINGER_SECONDS, self.transport.close)
