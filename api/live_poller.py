"""One poller for all that waits. Streams and `Prefer: wait` say what they wait for; one thread asks the database.

Readers who stand at the same place share one question, one answer and its encoded bytes. Nothing is kept for a reader
who is slow: its next question is asked when it comes for it.
"""

import asyncio
import contextlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from anyio import CapacityLimiter

from core.db.session import Database, is_transient
from core.db.wait_budget import waiting_for_something_else
from core.errors import QuotaExceeded
from core.jobs.events.feed import Ask, Look, look, versions

POLL_SECONDS: Final = 0.25
AWAY_SECONDS: Final = 1.0  # between tries while the database is away
MOST_WAIT: Final = 60  # seconds of `Prefer: wait`
_WAIT: Final = re.compile(r"(?:^|,)\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?:[;,]|$)", re.IGNORECASE)

Key = Ask | tuple[str, int]  # what a stream asks for, or a job and the version that a wait wants to see changed
_log = logging.getLogger("basin.live")


@dataclass(frozen=True, slots=True)
class News:
    """What came, once as it is and once as it is sent."""

    look: Look
    body: bytes


@dataclass(slots=True, eq=False)
class Pending:
    """A question without an answer yet. At `version` there was none (None: nobody has looked)."""

    key: Key
    version: int | None
    done: asyncio.Future[News | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    readers: int = 0

    @property
    def job_id(self) -> str:
        return self.key.job_id if isinstance(self.key, Ask) else self.key[0]

    async def within(self, seconds: float) -> bool:
        """Whether the answer came in that time. It is None when there will be none: the job is gone, or we stop."""
        await asyncio.wait((self.done,), timeout=seconds)
        return self.done.done()

    def answer(self, news: News | None) -> None:
        if not self.done.done():
            self.done.set_result(news)


@dataclass(frozen=True, slots=True)
class StreamPace:
    """Seconds between pings of an idle stream, until a reader that takes nothing is dropped, and between looks at
    whether a reader may still listen.
    """

    ping_seconds: float = 15.0
    slow_seconds: float = 20.0
    check_seconds: float = 5.0


class Live:
    """All open questions of this process, and the poller that answers them."""

    def __init__(self, db: Database, encode: Callable[[Look], bytes], most: int) -> None:
        """`most` is how many streams and waits one project may hold open."""
        self._db = db
        self._encode = encode
        self._most = most
        self.pace = StreamPace()
        self._held: Counter[str] = Counter()
        self._pending: dict[Key, Pending] = {}
        self._asked = asyncio.Event()  # there is something to poll for
        self._hungry = asyncio.Event()  # and it should not wait for the next round
        self._closed = False
        self._reader = ThreadPoolExecutor(1, "live")
        self.turn = CapacityLimiter(1)  # for what each reader has to ask, and one answer serves them all

    @property
    def held(self) -> int:
        """How many streams and waits there are."""
        return self._held.total()

    @contextlib.contextmanager
    def place(self, project: str) -> Iterator[None]:
        """One of the project's places, for as long as a stream or a wait lasts.

        Raises:
            QuotaExceeded: all are taken.
        """
        if self._held[project] >= self._most:
            raise QuotaExceeded(f"There are {self._most} open streams already; close some, or try again later.")
        self._held[project] += 1
        try:
            yield
        finally:
            self._held[project] -= 1
            self._held += Counter()  # forgets the projects that hold none

    @contextlib.contextmanager
    def asking(self, key: Key, version: int | None = None) -> Iterator[Pending]:
        """Ask until the block ends; `version` is where it is known that there is no answer yet."""
        pending = self._pending.get(key)
        if pending is None:
            pending = self._pending[key] = Pending(key, version)
        if self._closed:
            pending.answer(None)
        self._asked.set()
        if pending.version is None:
            self._hungry.set()
        pending.readers += 1
        try:
            yield pending
        finally:
            pending.readers -= 1
            if not pending.readers:
                self._forget(pending)

    async def change(self, project: str, job_id: str, version: int, seconds: float) -> bool:
        """Wait until the job has another version, at most that long; False when no place was free to wait in."""
        try:
            with (
                self.place(project),
                self.asking((job_id, version), version) as pending,
                waiting_for_something_else(),
            ):
                await pending.within(seconds)
        except QuotaExceeded:
            return False
        return True

    def close(self) -> None:
        """End all waiting, now and from now on."""
        self._closed = True
        for pending in self._pending.values():
            pending.answer(None)
        self._reader.shutdown(wait=False)

    async def poll(self) -> None:
        """Answer until cancelled. No error ends this: streams that hear nothing more are a fault that nobody sees."""
        while not self._closed:
            self._hungry.clear()
            try:
                await self._round()
            except Exception as error:  # noqa: BLE001 - as said above
                if is_transient(error):
                    _log.warning("the database is away: %s", type(error).__name__)
                else:
                    _log.error("a round of the poller failed", exc_info=error)
                await asyncio.sleep(AWAY_SECONDS)
            else:
                await self._rest()

    async def _rest(self) -> None:
        """Until the next round, or until somebody new asks; for as long as nobody asks, nothing is polled."""
        if not self._pending:
            self._asked.clear()
            await self._asked.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hungry.wait(), POLL_SECONDS)

    async def _round(self) -> None:
        waiting: dict[str, list[Pending]] = {}
        for pending in self._pending.values():
            waiting.setdefault(pending.job_id, []).append(pending)
        if not waiting:
            return
        known = await asyncio.get_running_loop().run_in_executor(self._reader, versions, self._db, set(waiting))
        for job_id, ones in waiting.items():
            stale = [one for one in ones if one.version != known.get(job_id)]
            asks = {one.key: one for one in stale if isinstance(one.key, Ask)}
            found = await self._look(job_id, list(asks)) if asks else None
            answers = dict(zip(asks, found, strict=True)) if found else {}
            for one in stale:
                news = answers.get(one.key) if isinstance(one.key, Ask) else None
                if news is None or news.look.items or news.look.ended or news.look.more:
                    self._forget(one)
                    one.answer(news)
                else:
                    one.version = news.look.version

    async def _look(self, job_id: str, asks: Sequence[Ask]) -> list[News] | None:
        """The news of one job, encoded in the poller's thread as well; None ends the streams that asked."""

        def work() -> list[News] | None:
            found = look(self._db, job_id, asks)
            return None if found is None else [News(one, self._encode(one)) for one in found]

        try:
            return await asyncio.get_running_loop().run_in_executor(self._reader, work)
        except Exception as error:
            if is_transient(error):
                raise
            _log.exception("the news of job %s cannot be told", job_id)
            return None

    def _forget(self, pending: Pending) -> None:
        if self._pending.get(pending.key) is pending:
            del self._pending[pending.key]


def wait_asked(prefer: str | None) -> int | None:
    """Seconds of `Prefer: wait=N`, at most MOST_WAIT; None when nothing of the kind was asked (RFC 7240)."""
    match = _WAIT.search(prefer or "")
    return (min(int(match[1]), MOST_WAIT) or None) if match else None
