"""Is the broker there? One PING over a fresh connection, so that nothing of Celery is needed to ask."""

import socket
import ssl
from urllib.parse import unquote, urlsplit

PATIENCE_SECONDS = 0.5


def broker_answers(url: str) -> bool:
    """Whether a Redis or Valkey at `url` (redis://, rediss://, redis+socket://) answers. NOAUTH is an answer too."""
    try:
        with _connected(url) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(1) in {b"+", b"-"}
    except (OSError, ValueError):
        return False


def _connected(url: str) -> socket.socket:
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
