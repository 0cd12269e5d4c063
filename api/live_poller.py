"""One poller for all streams and waits. They subscribe to changes; one thread queries the database for all of them.

Readers at the same cursor share one query, one page and its encoded bytes. Nothing is buffered for a slow reader: its
next query is made when it asks for the next page.
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
from core.db.wait_budget import pause_wait_budget
from core.errors import QuotaExceeded
from core.jobs.events.feed import FeedPage, FeedQuery, read_feed, read_versions

POLL_SECONDS: Final = 0.25
AWAY_SECONDS: Final = 1.0  # between tries while the database is away
MOST_WAIT: Final = 60  # seconds of `Prefer: wait`
_WAIT: Final = re.compile(r"(?:^|,)\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?:[;,]|$)", re.IGNORECASE)

Key = FeedQuery | tuple[str, int]  # the query of a stream, or (job id, version): a wait for another version of the job
_log = logging.getLogger("basin.live")


@dataclass(frozen=True, slots=True)
class Update:
    """A page of the feed, and the same page as the bytes that are sent."""

    page: FeedPage
    body: bytes


@dataclass(slots=True, eq=False)
class Subscription:
    """An open query. `version` is the newest version of the job without an answer (None: not queried yet)."""

    key: Key
    version: int | None
    done: asyncio.Future[Update | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    readers: int = 0

    @property
    def job_id(self) -> str:
        return self.key.job_id if isinstance(self.key, FeedQuery) else self.key[0]

    async def answered_within(self, seconds: float) -> bool:
        """Whether the answer came in that time. It is None when the job is deleted or the service stops."""
        await asyncio.wait((self.done,), timeout=seconds)
        return self.done.done()

    def set_answer(self, update: Update | None) -> None:
        if not self.done.done():
            self.done.set_result(update)


@dataclass(frozen=True, slots=True)
class StreamPace:
    """Seconds between pings of an idle stream, until a reader that takes nothing is dropped, and between checks that
    the reader's key is still valid.
    """

    ping_seconds: float = 15.0
    slow_seconds: float = 20.0
    check_seconds: float = 5.0


class LivePoller:
    """All open subscriptions of this process, and the loop that answers them."""

    def __init__(self, db: Database, encode: Callable[[FeedPage], bytes], most: int) -> None:
        """`most` is how many streams and waits one project may hold open."""
        self._db = db
        self._encode = encode
        self._most = most
        self.pace = StreamPace()
        self._held: Counter[str] = Counter()
        self._pending: dict[Key, Subscription] = {}
        self._asked = asyncio.Event()  # there is something to poll for
        self._hungry = asyncio.Event()  # there is a new subscription: poll without waiting for the next round
        self._closed = False
        self._reader = ThreadPoolExecutor(1, "live")
        self.turn = CapacityLimiter(1)  # for queries of each reader whose answer serves all of them

    @property
    def open_count(self) -> int:
        """The number of open streams and waits."""
        return self._held.total()

    @contextlib.contextmanager
    def reserve_place(self, project: str) -> Iterator[None]:
        """Count one stream or wait of the project while the block runs.

        Raises:
            QuotaExceeded: the project has as many open streams and waits as it may.
        """
        if self._held[project] >= self._most:
            raise QuotaExceeded(f"There are {self._most} open streams already; close some, or try again later.")
        self._held[project] += 1
        try:
            yield
        finally:
            self._held[project] -= 1
            self._held += Counter()  # removes the projects that hold none

    @contextlib.contextmanager
    def open_subscription(self, key: Key, version: int | None = None) -> Iterator[Subscription]:
        """Subscribe until the block ends; at `version` of the job there is no answer yet."""
        pending = self._pending.get(key)
        if pending is None:
            pending = self._pending[key] = Subscription(key, version)
        if self._closed:
            pending.set_answer(None)
        self._asked.set()
        if pending.version is None:
            self._hungry.set()
        pending.readers += 1
        try:
            yield pending
        finally:
            pending.readers -= 1
            if not pending.readers:
                self._drop_subscription(pending)

    async def wait_for_change(self, project: str, job_id: str, version: int, seconds: float) -> bool:
        """Wait until the job has another version, at most `seconds`; False when the limit of waits is reached."""
        try:
            with (
                self.reserve_place(project),
                self.open_subscription((job_id, version), version) as pending,
                pause_wait_budget(),
            ):
                await pending.answered_within(seconds)
        except QuotaExceeded:
            return False
        return True

    def close(self) -> None:
        """End all waiting, now and from now on."""
        self._closed = True
        for pending in self._pending.values():
            pending.set_answer(None)
        self._reader.shutdown(wait=False)

    async def poll_forever(self) -> None:
        """Poll until cancelled. An error does not end the loop: streams without a poller would stay silent forever."""
        while not self._closed:
            self._hungry.clear()
            try:
                await self._poll_once()
            except Exception as error:  # noqa: BLE001 - see the docstring
                if is_transient(error):
                    _log.warning("the database is away: %s", type(error).__name__)
                else:
                    _log.error("a round of the poller failed", exc_info=error)
                await asyncio.sleep(AWAY_SECONDS)
            else:
                await self._wait_for_round()

    async def _wait_for_round(self) -> None:
        """Wait for the next round or a new subscription; without subscriptions nothing is polled."""
        if not self._pending:
            self._asked.clear()
            await self._asked.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hungry.wait(), POLL_SECONDS)

    async def _poll_once(self) -> None:
        waiting: dict[str, list[Subscription]] = {}
        for pending in self._pending.values():
            waiting.setdefault(pending.job_id, []).append(pending)
        if not waiting:
            return
        known = await asyncio.get_running_loop().run_in_executor(self._reader, read_versions, self._db, set(waiting))
        for job_id, ones in waiting.items():
            stale = [one for one in ones if one.version != known.get(job_id)]
            asks = {one.key: one for one in stale if isinstance(one.key, FeedQuery)}
            found = await self._read_updates(job_id, list(asks)) if asks else None
            answers = dict(zip(asks, found, strict=True)) if found else {}
            for one in stale:
                update = answers.get(one.key) if isinstance(one.key, FeedQuery) else None
                if update is None or update.page.items or update.page.ended or update.page.more:
                    self._drop_subscription(one)
                    one.set_answer(update)
                else:
                    one.version = update.page.version

    async def _read_updates(self, job_id: str, asks: Sequence[FeedQuery]) -> list[Update] | None:
        """New pages of one job, encoded in the poller's thread; None ends the streams of this job."""

        def work() -> list[Update] | None:
            found = read_feed(self._db, job_id, asks)
            return None if found is None else [Update(one, self._encode(one)) for one in found]

        try:
            return await asyncio.get_running_loop().run_in_executor(self._reader, work)
        except Exception as error:
            if is_transient(error):
                raise
            _log.exception("events of job %s cannot be read or encoded; its streams end", job_id)
            return None

    def _drop_subscription(self, pending: Subscription) -> None:
        if self._pending.get(pending.key) is pending:
            del self._pending[pending.key]


def parse_prefer_wait(prefer: str | None) -> int | None:
    """Seconds of `Prefer: wait=N` (RFC 7240), at most MOST_WAIT; None without this preference."""
    match = _WAIT.search(prefer or "")
    return (min(int(match[1]), MOST_WAIT) or None) if match else None
