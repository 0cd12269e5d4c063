"""A proxy before an HTTP server that goes wrong when it is told to: refuses, resets, loses answers, cuts them short."""

import asyncio
import contextlib
import random
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, get_args

Fault = Literal["refuse", "reset", "lose", "cut"]
"""503 instead of asking · a reset instead of asking · asked, and all of the answer lost · or half of it."""

Choice = Fault | bytes | None  # bytes are an answer of our own
CLOSE = b"\r\nConnection: close\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CONNECTION = re.compile(rb"\r\nconnection: *[^\r]*", re.IGNORECASE)


def answer(status: int, body: str = "") -> bytes:
    """A whole answer as it goes over the line."""
    return b"HTTP/1.1 %d Said\r\nContent-Length: %d%b%b" % (status, len(body), CLOSE, body.encode())


def choose_none(_method: str, _target: str) -> Choice:
    return None


def same(message: bytes) -> bytes:
    return message


def unedited(_target: str, message: bytes) -> bytes:
    return message


@dataclass(frozen=True)
class Passed:
    """A request that came by, and what happened to it."""

    method: str
    target: str
    choice: Choice


@dataclass
class Proxy:
    """One request for each connection. `choose` decides about each; by default everything passes as it is."""

    upstream: tuple[str, int]
    choose: Callable[[str, str], Choice] = choose_none
    edit_request: Callable[[bytes], bytes] = same
    edit_answer: Callable[[str, bytes], bytes] = unedited
    passed: list[Passed] = field(default_factory=list)
    url: str = ""

    def at_random(self, share: float, seed: int) -> None:
        """From now on, this share of the requests meets one of the faults."""
        dice = random.Random(seed)
        self.choose = lambda _method, _target: dice.choice(get_args(Fault)) if dice.random() < share else None

    def once(self, fault: Choice, method: str, part: str = "") -> None:
        """The next such request meets this fault, and nothing else does."""
        left = [fault]
        self.choose = lambda met, target: left.pop() if left and met == method and part in target else None

    def calm(self) -> None:
        """From now on everything passes."""
        self.choose = choose_none

    def met(self, method: str, part: str = "") -> list[Choice]:
        """What happened to each such request."""
        return [one.choice for one in self.passed if one.method == method and part in one.target]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            request = await _request(reader)
            method, target = (word.decode() for word in request.split(b" ", 2)[:2])
            choice = self.choose(method, target)
            self.passed.append(Passed(method, target, choice))
            await self._treat(request, choice, writer)
        writer.close()

    async def _treat(self, request: bytes, choice: Choice, writer: asyncio.StreamWriter) -> None:
        match choice:
            case "reset":
                _reset(writer)
            case "refuse":
                writer.write(answer(503))
            case bytes():
                writer.write(choice)
            case "lose":
                await self._asked(request)
                _reset(writer)
            case "cut":
                whole = await self._asked(request)
                writer.write(whole[: len(whole) // 2])
                await writer.drain()
                _reset(writer)
            case _:
                writer.write(await self._asked(request))
        await writer.drain()

    async def _asked(self, request: bytes) -> bytes:
        head, _, body = self.edit_request(request).partition(b"\r\n\r\n")
        reader, writer = await asyncio.open_connection(*self.upstream)
        writer.write(_CONNECTION.sub(b"", head) + CLOSE + body)
        await writer.drain()
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        return self.edit_answer(request.split(b" ", 2)[1].decode(), _CONNECTION.sub(b"", head) + CLOSE + body)


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    return head + await reader.readexactly(int(length[1]) if length else 0)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST: what was sent and not read yet is lost, as when a machine dies."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextlib.contextmanager
def proxied(upstream: tuple[str, int]) -> Iterator[Proxy]:
    """A proxy on a free port, in a thread of its own."""
    proxy, stop = Proxy(upstream), asyncio.Event()
    listening = threading.Event()
    loop = asyncio.new_event_loop()

    async def run() -> None:
        async with await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=1 << 20) as server:
            proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            listening.set()
            await stop.wait()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), name="proxy")
    thread.start()
    listening.wait()
    yield proxy
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
