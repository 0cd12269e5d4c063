"""The process that has imported torch and forks a runner per order, so that a job need not wait 2 s for the import.

Exec'd by the launcher with a clean environment. One thread, CUDA never touched, no credential, no database. It ends
when its control socket does or its parent dies, and the kernel then kills its runners.

    launcher -> zygote   {"runner": id, "stderr": file, "devices": "0" | null}  with the runner's end of its pipe
    zygote -> launcher   {"ready": …}   {"runner": id, "pid": n}   {"runner": id, "status": wait status}
"""

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
from typing import Any, Final

from worker import exits, lifeline, memory

ORDER_BYTES: Final = 64 << 10
BORN_SECONDS: Final = 10.0  # for the first few lines of a child
_RESET: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP)


class Zygote:
    """Serves orders, one datagram each, until the other end is gone."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._pid = os.getpid()
        self._runners: dict[int, str] = {}  # pid -> runner id
        self._wake, self._woken = socket.socketpair()

    def serve(self) -> None:
        self._watch_children()
        self._say({"ready": os.getpid()})
        while True:
            readable, _, _ = select.select([self._control, self._wake], [], [])
            if self._wake in readable:
                self._wake.recv(4096)
                self._report_ended()
            if self._control in readable and not self._obey():
                return

    def _watch_children(self) -> None:
        """SIGCHLD becomes a byte on a socket, so that one `select` hears orders and deaths."""
        self._woken.settimeout(0)
        signal.set_wakeup_fd(self._woken.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _signum, _frame: None)

    def _obey(self) -> bool:
        data, fds, _, _ = socket.recv_fds(self._control, ORDER_BYTES, 1)
        if not data:
            return False
        order = json.loads(data)
        try:
            (pipe,) = fds  # the kernel drops it where we may open no more
            born, bearing = os.pipe()
            pid = os.fork()
        except (OSError, ValueError) as error:  # other runners live on
            return self._refuse(order, fds, error)
        if pid == 0:
            self._become_runner(order, pipe, born, bearing)
        os.close(pipe)
        os.close(bearing)
        # Its end means that the child leads its group (or is dead): a signal sent to the group before finds nobody.
        if not select.select([born], [], [], BORN_SECONDS)[0]:
            os.kill(pid, signal.SIGKILL)  # stopped before it could lead: nobody else could reach it, and all would wait
        os.close(born)
        self._runners[pid] = order["runner"]
        self._say({"runner": order["runner"], "pid": pid})
        return True

    def _refuse(self, order: dict[str, Any], fds: list[int], error: Exception) -> bool:
        """This machine has no room for another process: as if there had been one that said so."""
        with contextlib.suppress(OSError):
            sys.stderr.write(f"no runner could be forked: {error}\n")
        for fd in fds:
            os.close(fd)
        self._say({"runner": order["runner"], "status": exits.MACHINE_FAILED << 8})
        return True

    def _report_ended(self) -> None:
        """Report every runner that has ended; signals may have been merged, so look until nothing is left."""
        while self._runners:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                return
            status = lifeline.reap_group(ended.si_pid)
            self._say({"runner": self._runners.pop(ended.si_pid, ""), "status": status})

    def _say(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._control.send(json.dumps(message).encode())

    def _become_runner(self, order: dict[str, Any], fd: int, born: int, bearing: int) -> None:
        """The child's whole life; it never returns into the zygote's loop."""
        code = exits.CRASHED
        try:
            signal.set_wakeup_fd(-1)
            for signum in _RESET:
                signal.signal(signum, signal.SIG_DFL)
            os.setsid()
            os.close(born)
            os.close(bearing)
            lifeline.die_with_parent(self._pid)
            memory.volunteer()
            self._control.close()
            self._wake.close()
            self._woken.close()
            code = run_as_runner(fd, order["stderr"], order["devices"])
        except BaseException as error:  # noqa: BLE001 - a forked child must end here, whatever happened
            code = exits.last_words(error)
        finally:
            exits.end(code)


def run_as_runner(fd: int, stderr: str, devices: str | None) -> int:
    """Keep the pipe, send everything printed to a file, and train; the exit status."""
    from worker import runner

    null = os.open(os.devnull, os.O_RDONLY)
    out = os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.closerange(3, fd)
    os.closerange(fd + 1, os.sysconf("SC_OPEN_MAX"))
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices
    return runner.run(socket.socket(fileno=fd))


def main() -> None:
    """`python -m worker.zygote FD PARENT`: warm up, then serve."""
    control, parent = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    lifeline.die_with_parent(parent)
    # A Ctrl-C or a service manager's SIGTERM goes to the whole group: the worker decides, and closes our socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    from worker import runner

    runner.warm()
    gc.collect()
    gc.freeze()  # a collection in a runner would otherwise copy the zygote's pages
    Zygote(control).serve()


if __name__ == "__main__":
    main()
