"""Hints: they arrive when the broker is well, and nobody notices when it is not."""

import json
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from core.queue import QUEUES, TASK, Hints, celery_settings
from core.settings import Settings
from tests.support.broker import Broker


def settings_for(url: str, home: Path) -> Settings:
    return Settings.model_validate({"home": home, "broker_url": url})


@contextmanager
def sender(url: str, home: Path) -> Iterator[Hints]:
    hints = Hints(settings_for(url, home))
    try:
        yield hints
    finally:
        hints.close()


@contextmanager
def consumer(url: str, home: Path) -> Iterator[Any]:
    app = Celery("consumer", set_as_current=False)
    app.conf.update(celery_settings(settings_for(url, home)))
    with app.connection_for_read() as connection:
        yield connection
    app.close()


def arrived(connection: Any, queue: str, seconds: float) -> list[Any]:
    """The messages of a queue; waits for the first."""
    with connection.SimpleQueue(queue) as box:
        found: list[Any] = []
        with suppress(box.Empty):
            while True:
                message = box.get(timeout=0.2 if found else seconds)
                message.ack()
                found.append(message)
        return found


def test_hints_arrive_as_the_task_without_arguments(broker: Broker, tmp_path: Path) -> None:
    with sender(broker.url, tmp_path) as hints, consumer(broker.url, tmp_path) as connection:
        hints.send("any")
        hints.send("cpu")
        on_cpu, on_gpu = arrived(connection, "cpu", 20.0), arrived(connection, "gpu", 5.0)
    assert (len(on_cpu), len(on_gpu)) == (2, 1)
    for message in (*on_cpu, *on_gpu):
        assert message.headers["task"] == TASK
        assert message.content_type == "application/json"
        body = message.body if isinstance(message.body, str) else bytes(message.body).decode()
        assert json.loads(body)[:2] == [[], {}]


def test_a_full_broker_is_not_filled_further(broker: Broker, tmp_path: Path) -> None:
    """No worker for a week, and the reconcilers go on hinting: the broker's memory must not notice."""
    with sender(broker.url, tmp_path) as hints, consumer(broker.url, tmp_path) as connection:
        for _ in range(6):
            for _ in range(40):
                hints.send("cpu")
            assert eventually(hints._waiting.empty)
        found = arrived(connection, "cpu", 5.0)
    assert 100 <= len(found) <= 101


def test_the_next_hint_arrives_after_the_broker_came_back_empty(broker: Broker, tmp_path: Path) -> None:
    with sender(broker.url, tmp_path) as hints:
        hints.send("cpu")
        with consumer(broker.url, tmp_path) as connection:
            assert arrived(connection, "cpu", 20.0)
        broker.kill()
        hints.send("cpu")
        assert eventually(hints._waiting.empty)
        broker.start()
        with consumer(broker.url, tmp_path) as connection:

            def sent_and_arrived() -> bool:
                hints.send("cpu")
                return bool(arrived(connection, "cpu", 1.0))

            assert eventually(sent_and_arrived)


def eventually(check: Callable[[], Any], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(0.02)
    return False


@contextmanager
def listener_that_never_answers() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


def refusing() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"redis://127.0.0.1:{server.getsockname()[1]}/0"


def test_a_silent_broker_holds_up_nobody(tmp_path: Path) -> None:
    """Celery alone blocks for ever here. The bounds are generous: they tell waiting from not waiting."""
    with listener_that_never_answers() as url:
        hints = Hints(settings_for(url, tmp_path))
        started = time.monotonic()
        for _ in range(1000):
            hints.send("any")
        sent = time.monotonic() - started
        hints.close()
        closed = time.monotonic() - started - sent
    assert sent < 5.0
    assert closed < 5.0
    hints.send("cpu")
    hints.close()


def test_a_stopped_broker_holds_up_nobody(broker: Broker, tmp_path: Path) -> None:
    with sender(broker.url, tmp_path) as hints:
        hints.send("cpu")
        assert eventually(hints._waiting.empty)
        broker.signal(signal.SIGSTOP)
        try:
            started = time.monotonic()
            for _ in range(100):
                hints.send("cpu")
            assert time.monotonic() - started < 5.0
        finally:
            broker.signal(signal.SIGCONT)


def test_an_absent_broker_costs_one_line_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with sender(refusing(), tmp_path) as hints:
        for _ in range(3):
            hints.send("cpu")
        assert eventually(lambda: "took no hint" in caplog.text)
        assert eventually(hints._waiting.empty)
    assert caplog.text.count("took no hint") == 1


def test_nothing_is_started_for_hints_that_are_never_sent(tmp_path: Path) -> None:
    before = threading.active_count()
    with sender(refusing(), tmp_path):
        assert threading.active_count() == before


def test_both_sides_share_the_settings_of_the_protocol(tmp_path: Path) -> None:
    shared = celery_settings(settings_for("redis://127.0.0.1:1/0", tmp_path))
    assert shared["broker_transport_options"] == {
        "socket_timeout": 5,
        "socket_connect_timeout": 3,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "max_retries": 1,
        "global_keyprefix": "basin:",
    }
    assert (shared["accept_content"], shared["result_backend"]) == (["json"], None)
    assert (shared["worker_disable_prefetch"], shared["worker_enable_remote_control"]) == (True, False)
    assert QUEUES == {"cpu": ("cpu",), "gpu": ("gpu",), "any": ("cpu", "gpu"), "light": ("light",)}
