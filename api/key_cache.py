"""The keys as this process last heard of them: used by every request, read from the database every few seconds."""

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

FRESH_SECONDS: Final = 3.0  # what was read is believed for so long: a revoked key opens nothing after that
MOST_KEPT: Final = 1024  # keys remembered, unknown ones included
MINUTE: Final = 60.0


@dataclass(frozen=True, slots=True)
class _CachedKey:
    """What the database said, and when (monotonic seconds)."""

    key: Key | None
    at: float

    def is_valid_at(self, at: float) -> bool:
        """Whether the key is neither unknown nor revoked nor past its end at this moment."""
        key = self.key
        return key is not None and key.revoked_at is None and (key.lasts is None or key.lasts > at - self.at)


class Keyring:
    """Blocking, and safe to ask from many threads; `recall` never blocks."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self._db = db
        self._defaults = settings.key_limits
        self._lock = threading.Lock()
        self._reads: OrderedDict[str, _CachedKey] = OrderedDict()
        self._used: dict[str, deque[float]] = {}
        self._made = False
        self._asked_at = -math.inf

    def any_made(self) -> bool:
        """Whether there ever was a key. That never changes back; that there is none yet is believed for a moment."""
        if not self._made and time.monotonic() - self._asked_at > FRESH_SECONDS:
            self._made = key_was_made(self._db)
            self._asked_at = time.monotonic()
        return self._made

    def recall_any_made(self) -> bool | None:
        """The same without the database; None when it has to be asked."""
        if self._made:
            return True
        return False if time.monotonic() - self._asked_at <= FRESH_SECONDS else None

    def forget_key(self, key_id: str) -> None:
        """Read this key anew: something about it has changed."""
        with self._lock:
            self._reads.pop(key_id, None)
            self._asked_at = -math.inf

    def recall_key(self, text: str) -> Key | None:
        """The key that opens with this text as far as it is known without the database; None: look it up."""
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
        """The key that opens with this text, its limits filled up with the defaults.

        Raises:
            Unauthenticated: none does. Unknown, expired, revoked and malformed are all the same to the outside.
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
        """One request more; the window moves, so that any 60 seconds hold as many as are allowed.

        Raises:
            QuotaExceeded: it is one too many; `retry_after_seconds` says when the next one fits.
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
        told = {"limit": "requests_per_minute", "allowed": most, "used": made, "retry_after_seconds": max(1, wait)}
        raise QuotaExceeded(f"This key may make {most} requests a minute.", extra=dict(told))

    def _read_key(self, key_id: str) -> _CachedKey:
        with self._lock:
            read = self._reads.get(key_id)
        if read is not None and time.monotonic() - read.at <= FRESH_SECONDS:
            return read
        at = time.monotonic()  # before the question: the answer may be as old as that
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
        """`last_used_at`, which is not worth an error."""
        if key.idle is not None and 0 <= key.idle < TOUCH_SECONDS:
            return
        try:
            record_key_use(self._db, key.id)
        except Exception as error:
            if not is_transient(error):
                raise
