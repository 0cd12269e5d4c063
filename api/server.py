"""The server process: socket, logging, signals."""

import asyncio
import contextlib
import logging
import resource
import signal
import socket
from collections.abc import Iterator
from functools import partial
from typing import cast

import uvicorn

from api.app import create_app
from api.auth import is_loopback, require_key
from api.http_protocol import RequestProtocol
from api.unfinished_requests import UnfinishedRequests
from core.db.migrate import unfit_reason
from core.db.session import is_transient, open_database
from core.errors import Misconfigured
from core.jobs.keys import key_is_active
from core.logs import configure_logging
from core.redact import register_secrets
from core.settings import Settings
from core.store import open_store

GRACE_SECONDS = 1  # for answers that are under way; a stop takes 2 s at most
DEAF_SECONDS = 60  # accepted connections inherit it
BACKLOG = 2048  # connections that wait to be accepted


class Server(uvicorn.Server):
    """Stops on SIGTERM and SIGINT with exit code 0: such a stop was requested."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.handle_exit)
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End streams and waits first, which could last for hours; their readers reconnect."""
        service = getattr(getattr(self.config.app, "state", None), "service", None)
        if service is not None:
            service.live.close()
        await super().shutdown(sockets)


def run_server(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Errors in the settings are raised before anything starts.

    Raises:
        Misconfigured: the address is taken, unusable, or open to others while there is no key; a URL is wrong; the
            database is not one for this release.
    """
    register_secrets(settings)
    app = create_app(settings)
    open_store(settings)
    _require_schema_and_key(settings)
    _raise_descriptor_limit()
    with _bound_socket(settings.host, settings.port) as listener:
        configure_logging(settings.log_level, settings.log_format)
        host, port = listener.getsockname()[:2]
        logging.getLogger("basin.api").info("listening on http://%s:%s", f"[{host}]" if ":" in host else host, port)
        config = uvicorn.Config(
            app,
            http=_protocol_factory(settings),
            log_config=None,
            log_level="warning",
            access_log=False,  # api/middleware.py writes that line, with the request id
            server_header=False,
            proxy_headers=False,  # X-Forwarded-* can be forged by any client
            ws="none",
            lifespan="on",
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        Server(config).run(sockets=[listener])


def _protocol_factory(settings: Settings) -> type[asyncio.Protocol]:
    """The factory that uvicorn calls for each connection. Its type says class; it accepts any callable."""
    unfinished = UnfinishedRequests(settings.trusted_proxies or ())
    made = partial(RequestProtocol, unfinished=unfinished, header_seconds=settings.header_seconds)
    return cast("type[asyncio.Protocol]", made)


def _raise_descriptor_limit() -> None:
    """Raise the soft limit of descriptors: each connection takes one, and the usual 1,024 is for select() programs."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS reports a hard limit that it refuses
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _require_schema_and_key(settings: Settings) -> None:
    """Check the schema and the key. A database that is away is no error: requests get 503 until it is back."""
    with contextlib.closing(open_database(settings.resolved_database_url(), pool_size=1)) as db:
        try:
            problem = unfit_reason(db)
            keyed = problem is not None or is_loopback(settings.host) or key_is_active(db)
        except Exception as error:
            if not is_transient(error):
                raise
            return
    if problem:
        raise Misconfigured(problem)
    require_key(settings.host, active=keyed)


@contextlib.contextmanager
def _bound_socket(host: str, port: int) -> Iterator[socket.socket]:
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
        family, *_, address = min(found, key=lambda info: info[0] != socket.AF_INET)  # `localhost` means 127.0.0.1
        listener = socket.create_server((str(address[0]), port), family=family, backlog=BACKLOG)
    except OSError as error:
        message = f"cannot listen on {host}:{port} ({error.strerror}); another port: --port 0 or BASIN_PORT"
        raise Misconfigured(message) from error
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux: bounds how long a peer that takes nothing holds memory
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * DEAF_SECONDS)
    with listener:
        yield listener
