"""The cache of API keys: used by every request, refreshed from the database every few seconds."""

import math
import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, replace
from typing import Final

from core.db.session import Database, is_transient
from core.errors import QuotaExceeded, Unauthenticated
from core.jobs.keys import TOUCH_SECONDS, Key, find_key, key_was_made, parse_key, record_key_use, secret_matches
from core.settings import Limits, Settings

FRESH_SECONDS: Final = 3.0  # a cached key is valid for this time: a revoked key is refused after it
MOST_KEPT: Final = 1024  # cached keys, unknown ones included
MINUTE: Final = 60.0


@dataclass(frozen=True, slots=True)
class _CachedKey:
    """A key as it was in the database at `at` (monotonic seconds)."""

    key: Key | None
    at: float

    def is_valid_at(self, at: float) -> bool:
        """Whether the key exists and is neither revoked nor expired at this time."""
        key = self.key
        return key is not None and key.revoked_at is None and (key.lasts is None or key.lasts > at - self.at)


class Keyring:
    """The cache. Thread-safe; methods block on the database, except those named `recall_…`."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self._db = db
        self._defaults = settings.key_limits
        self._lock = threading.Lock()
        self._reads: OrderedDict[str, _CachedKey] = OrderedDict()
        self._used: dict[str, deque[float]] = {}
        self._made = False
        self._asked_at = -math.inf

    def any_made(self) -> bool:
        """Whether a key was ever made. True is final; False is cached for FRESH_SECONDS."""
        if not self._made and time.monotonic() - self._asked_at > FRESH_SECONDS:
            self._made = key_was_made(self._db)
            self._asked_at = time.monotonic()
        return self._made

    def recall_any_made(self) -> bool | None:
        """The same from the cache alone; None when the database has to be read."""
        if self._made:
            return True
        return False if time.monotonic() - self._asked_at <= FRESH_SECONDS else None

    def forget_key(self, key_id: str) -> None:
        """Remove a key that has changed from the cache, so that its next use reads the database."""
        with self._lock:
            self._reads.pop(key_id, None)
            self._asked_at = -math.inf

    def recall_key(self, text: str) -> Key | None:
        """The valid key with this text, from the cache alone; None: call `look_up`."""
        found = parse_key(text)
        if found is None:
            return None
        with self._lock:
            read = self._reads.get(found[0])
        at = time.monotonic()
        if (
            read is None
            or at - read.at > FRESH_SECONDS
            or not read.is_valid_at(at)
            or not secret_matches(read.key, found[1])
        ):
            return None
        return read.key

    def look_up(self, text: str) -> Key:
        """The valid key with this text, its missing limits set to the defaults.

        Raises:
            Unauthenticated: there is none. Unknown, expired, revoked and malformed keys get the same message.
        """
        found = parse_key(text)
        if found is None:
            raise Unauthenticated
        key_id, secret = found
        read = self._read_key(key_id)
        if not secret_matches(read.key, secret) or not read.is_valid_at(time.monotonic()) or read.key is None:
            raise Unauthenticated
        self._record_use(read.key)
        return read.key

    def count_request(self, key_id: str, limits: Limits) -> None:
        """Count one request in a sliding window of 60 seconds.

        Raises:
            QuotaExceeded: the window is full; `retry_after_seconds` says when the next request fits.
        """
        most = limits.requests_per_minute
        if most is None:
            return
        at = time.monotonic()
        with self._lock:
            used = self._used.setdefault(key_id, deque())
            while used and used[0] <= at - MINUTE:
                used.popleft()
            if len(used) < most:
                used.append(at)
                return
            wait, made = math.ceil(used[len(used) - most] + MINUTE - at), len(used)
        quota = {"limit": "requests_per_minute", "allowed": most, "used": made, "retry_after_seconds": max(1, wait)}
        raise QuotaExceeded(f"This key may make {most} requests a minute.", extra=dict(quota))

    def _read_key(self, key_id: str) -> _CachedKey:
        with self._lock:
            read = self._reads.get(key_id)
        if read is not None and time.monotonic() - read.at <= FRESH_SECONDS:
            return read
        at = time.monotonic()  # before the query: the row may be this old
        key = find_key(self._db, key_id)
        if key is not None:
            key = replace(key, limits=key.limits.with_defaults(self._defaults))
        read = _CachedKey(key, at)
        with self._lock:
            self._reads[key_id] = read
            self._reads.move_to_end(key_id)
            while len(self._reads) > MOST_KEPT:
                self._reads.popitem(last=False)
        return read

    def _record_use(self, key: Key) -> None:
        """Store `last_used_at`. A failure does not fail the request."""
        if key.idle is not None and 0 <= key.idle < TOUCH_SECONDS:
            return
        try:
            record_key_use(self._db, key.id)
        except Exception as error:
            if not is_transient(error):
                raise
