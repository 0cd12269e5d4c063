"""Starts prepare processes. This process imports no parser."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from core.process import without_secrets
from worker.launcher import LaunchFailed, RunnerProcess, wait_and_report
from worker.runner_user import RunnerUser

MODULE: Final = "worker.prepare"
NICENESS: Final = 15
Confinement = Literal["required", "best"]
ENVIRONMENT: Final = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # or importing pyarrow starts a thread that is not isolated
    "TOKENIZERS_PARALLELISM": "false",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
}
_KEPT: Final = frozenset({"PATH", "LD_LIBRARY_PATH"})


class PrepareLauncher:
    """Every prepare process is a new one, in a session of its own, with almost no environment.

    It ends with the *thread* that launched it, so that thread has to stay.
    """

    def __init__(self, confinement: Confinement = "best", user: RunnerUser | None = None, module: str = MODULE) -> None:
        """`required`: nothing is parsed where a kind of isolation is missing. `user` of the process; None: our own."""
        self._confinement = confinement
        self._user = user
        self._module = module

    def launch(self, stderr: Path, input_fd: int, folder: Path) -> RunnerProcess:
        """Start a process that reads `input_fd` and writes into the empty `folder`; raises LaunchFailed.

        `input_fd` is a regular file that was opened for reading only, or a memfd with all its seals (a process can open
        its own memfd again for writing, however isolated). It may be closed afterwards.
        """
        ours, theirs = socket.socketpair()
        arguments = [str(theirs.fileno()), str(input_fd), str(os.getpid()), str(folder.absolute()), self._confinement]
        with theirs:
            try:
                with stderr.open("ab") as out:
                    process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                        [sys.executable, "-I", "-m", self._module, *arguments],
                        stdin=subprocess.DEVNULL,
                        stdout=out,
                        stderr=out,
                        cwd="/",
                        env=parser_environment(os.environ, folder),
                        pass_fds=[theirs.fileno(), input_fd],
                        start_new_session=True,
                        **(self._user.popen_options if self._user else {}),
                    )
            except OSError as error:
                ours.close()
                raise LaunchFailed(f"no prepare process could be started: {error}") from error
        runner = RunnerProcess(ours)
        runner.set_pid(process.pid)
        threading.Thread(target=wait_and_report, args=(process, runner), name="prepare-reaper", daemon=True).start()
        return runner


def parser_environment(environ: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The whole environment of a prepare process; temporary files go into its output folder."""
    kept = {name: value for name, value in without_secrets(environ).items() if name in _KEPT}
    return kept | ENVIRONMENT | {"TMPDIR": str(folder.absolute())}
