"""Readiness probes. The broker: one PING over a new connection, without Celery. The database: one write, shared by all
requests of a few seconds.
"""

import math
import socket
import ssl
import threading
import time
from urllib.parse import unquote, urlsplit

from core.db.session import Database, is_full, is_read_only
from core.jobs.health.readiness import probe_write

PATIENCE_SECONDS = 0.5
FRESH_SECONDS = 3.0  # readiness needs no key and has no rate limit
TURN_SECONDS = 5.0


class WriteProbe:
    """Whether the database takes writes; the result of one write is cached for `fresh_seconds`."""

    def __init__(self, db: Database, fresh_seconds: float = FRESH_SECONDS) -> None:
        self._db = db
        self.fresh_seconds = fresh_seconds
        self._turn = threading.Lock()
        self._asked_at = -math.inf
        self._problem: str | None = None

    def write_problem(self) -> str | None:
        """Why the database takes no writes; None when it does. At most a few seconds old."""
        if not self._turn.acquire(timeout=TURN_SECONDS):
            return "a write has taken too long"
        try:
            if time.monotonic() - self._asked_at > self.fresh_seconds:
                self._problem = self._try_write()
                self._asked_at = time.monotonic()
            return self._problem
        finally:
            self._turn.release()

    def _try_write(self) -> str | None:
        try:
            probe_write(self._db)
        except Exception as error:
            if is_full(error):
                return "the disk of the database is full"
            if is_read_only(error):
                return "the database is read only"
            raise
        return None


def broker_answers(url: str) -> bool:
    """Whether a Redis or Valkey at `url` (redis://, rediss://, redis+socket://) answers. NOAUTH is an answer too."""
    try:
        with _connect_broker(url) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(1) in {b"+", b"-"}
    except (OSError, ValueError):
        return False


def _connect_broker(url: str) -> socket.socket:
    parts = urlsplit(url)
    if parts.scheme in {"redis+socket", "unix"}:
        local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        local.settimeout(PATIENCE_SECONDS)
        try:
            local.connect(unquote(parts.path))
        except OSError:
            local.close()
            raise
        return local
    host = parts.hostname or "localhost"
    plain = socket.create_connection((host, parts.port or 6379), PATIENCE_SECONDS)
    return ssl.create_default_context().wrap_socket(plain, server_hostname=host) if parts.scheme == "rediss" else plain
