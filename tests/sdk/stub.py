"""A stand-in for the service, over a real socket: answers what a test says, and remembers what it was asked."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass(frozen=True)
class Asked:
    """One request as it came in; header names are lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass(frozen=True)
class Answer:
    """What to answer. `cut` closes the connection after that many bytes of the body; -1 without any answer."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


Say = Answer | Callable[[Asked], Answer]


class Stub:
    """Answers are used up in order, the last one of a path again and again; unknown paths get a 404 problem."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self._says: dict[tuple[str, str], list[Say]] = {}
        self.url = ""

    def on(self, method: str, path: str, *says: Say) -> None:
        self._says[method, path] = list(says)

    def requests(self, method: str, path: str) -> list[Asked]:
        return [one for one in self.asked if (one.method, one.path) == (method, path)]

    def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        says = self._says.get((asked.method, asked.path))
        if says is None:
            return Answer(404, {"title": "Not Found", "status": 404, "code": "not_found", "detail": "There is none."})
        say = says.pop(0) if len(says) > 1 else says[0]
        return say if isinstance(say, Answer) else say(asked)


class Handler(BaseHTTPRequestHandler):
    """HTTP around a Stub."""

    protocol_version = "HTTP/1.1"
    stub: Stub

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PATCH(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as above
        """Tests print enough."""

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        raw = "octet-stream" in headers.get("content-type", "")
        body = sent if raw else json.loads(sent) if sent else None
        answer = self.stub.answer(Asked(self.command, unquote(parts.path), query, headers, body))
        if answer.cut == -1:
            self.close_connection = True
            return
        content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        if answer.status in {204, 304}:
            content = b""
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(content)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: answer.cut])
        self.close_connection = self.close_connection or answer.cut is not None


@contextmanager
def serving() -> Iterator[Stub]:
    """A stub on a free port, until the block ends."""
    stub = Stub()
    handler = type("BoundHandler", (Handler,), {"stub": stub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        stub.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield stub
        server.shutdown()
        thread.join()
