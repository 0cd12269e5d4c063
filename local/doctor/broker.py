"""The broker: a round trip of one message through a temporary queue."""

import secrets
import time
from collections.abc import Iterator
from typing import Any, Final

from core.queue import celery_settings
from core.settings import Settings
from local.doctor.checks import CheckResult, failed_check, first_line, passed_check, warning_check
from local.doctor.settings import display_url

NAME: Final = "broker"
SECONDS: Final = 2.0


def broker_checks(settings: Settings) -> Iterator[CheckResult]:
    """Without a broker jobs are found by polling. It is a failure only if a configured one does not answer."""
    url = settings.resolved_broker_url()
    try:
        seconds = round_trip(url, settings)
    except Exception as error:  # noqa: BLE001 - each transport has errors of its own
        found = f"a message through {display_url(url)} failed: {first_line(error)}"
        if settings.broker_url is not None:
            yield failed_check(
                NAME,
                found,
                "start it, or correct BASIN_BROKER_URL; until then workers find jobs by polling, which is slower",
            )
        else:
            yield warning_check(NAME, found, "`basin up` starts one; BASIN_BROKER_URL names another")
    else:
        yield passed_check(NAME, f"{display_url(url)}, a message came back in {1e3 * seconds:.0f} ms")


def round_trip(url: str, settings: Settings) -> float:
    """Seconds that a message takes through a temporary queue, which is deleted afterwards."""
    from kombu.connection import Connection

    options = celery_settings(settings)["broker_transport_options"]
    hurried = {"socket_timeout": SECONDS, "socket_connect_timeout": SECONDS, "max_retries": 0}
    token = secrets.token_hex(8)
    made: Any = Connection(url, transport_options=options | hurried, connect_timeout=SECONDS)  # type: ignore[no-untyped-call]
    with made as connection:
        connection.ensure_connection(max_retries=1, timeout=SECONDS)
        begun = time.monotonic()
        with connection.SimpleBuffer(f"doctor-{token}") as buffer:
            try:
                buffer.put({"token": token}, serializer="json", retry=False)
                body = buffer.get(timeout=SECONDS).payload
            finally:
                buffer.queue.delete()
        if body != {"token": token}:
            raise ValueError("another message came back")
        return time.monotonic() - begun
