"""Runners as a worker has them (launcher, zygote, frames on a pipe), without its database."""

import json
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final

from core.recipe.assignment import Assignment, Resume
from core.recipe.data import DataSpec
from core.recipe.spec import JobSpec
from tests.gpu.check.data import dataset
from tests.gpu.check.target import Target
from worker import child_process, wire
from worker.launcher import ProcessExit, ZygoteLauncher

READY_SECONDS: Final = 120.0
Frame = dict[str, Any]
_numbers: Final = count(1)


class TooLate(Exception):  # noqa: N818 - the name says what happened
    """What was waited for did not come in time, or cannot come any more."""


class Attempt:
    """One runner with one assignment; its frames are gathered as they are waited for."""

    def __init__(self, launcher: ZygoteLauncher, assignment: Assignment, devices: str | None) -> None:
        self.assignment = assignment
        self.frames: list[Frame] = []
        self.began = time.monotonic()
        self.stderr = assignment.scratch.with_suffix(".log")
        self.process = launcher.launch(self.stderr, devices)
        self._splitter = wire.FrameSplitter()
        self._open = True
        self._looked_at = 0  # frames, by whoever has waited so far
        order = {"assignment": assignment.model_dump(mode="json", by_alias=True)}
        self.process.sock.sendall(wire.pack_frame("assignment", assignment.job, order))

    def wait_for(self, wanted: Callable[[Frame], bool], seconds: float) -> Frame:
        """The next frame that is wanted. Raises TooLate, with what the runner printed."""
        until = time.monotonic() + seconds
        while True:
            while self._looked_at < len(self.frames):
                frame = self.frames[self._looked_at]
                self._looked_at += 1
                if wanted(frame):
                    return frame
            left = until - time.monotonic()
            if not self._open or left <= 0:
                raise TooLate(f"{self._standing()}; it printed: {child_process.read_tail(self.stderr, 400)}")
            self._read(left)

    def _read(self, seconds: float) -> None:
        if not select.select([self.process.sock], [], [], seconds)[0]:
            return
        try:
            data = self.process.sock.recv(1 << 20)
        except ConnectionResetError:
            data = b""
        self._open = bool(data)
        self.frames += map(wire.unpack_payload, self._splitter.feed_bytes(data))

    def _standing(self) -> str:
        last = self.frames[-1]["type"] if self.frames else "nothing"
        return f"{self.assignment.job}: the last frame was {last}, the runner {self.process.wait(0) or 'lives'}"

    def wait_for_kind(self, kind: str, seconds: float) -> Frame:
        """The next frame of a type."""
        return self.wait_for(lambda frame: frame["type"] == kind, seconds)

    def ended(self, seconds: float) -> Frame:
        """Its last frame, and the end of its process."""
        found = self.wait_for_kind("ended", seconds)
        self.process.wait(10.0)
        return found

    def environment(self) -> dict[str, Any]:
        """What it says that it computes on."""
        found: dict[str, Any] = next(frame["environment"] for frame in self.frames if frame["type"] == "started")
        return found

    def stop(self) -> None:
        """Ask for an end at a checkpoint."""
        self.process.sock.sendall(wire.pack_frame("stop", self.assignment.job, {"mode": "checkpoint"}))

    def kill(self, seconds: float = 30.0) -> ProcessExit | None:
        """SIGKILL, and the end that the launcher heard of."""
        self.process.kill()
        return self.process.wait(seconds)

    def drain(self) -> None:
        """Read what a dead runner has left in the pipe."""
        while self._open:
            self._read(1.0)

    def last(self) -> Frame:
        """Its newest resumable checkpoint."""
        return [frame for frame in self.frames if frame["type"] == "checkpoint" and frame["resumable"]][-1]

    def digests(self) -> dict[str, str]:
        """SHA-256 of weights and state in its newest checkpoint."""
        return {role: file["sha256"] for role, file in self.last()["files"].items() if role != "manifest"}

    def resume(self) -> Resume:
        """What the next attempt goes on from."""
        folder = Path(self.last()["folder"])
        manifest = json.loads((folder / "manifest.json").read_text())
        return Resume(weights=folder / "weights.safetensors", state=folder / "state.safetensors", manifest=manifest)


class Service:
    """A launcher, and attempts at jobs by it."""

    def __init__(self, target: Target, launcher: ZygoteLauncher, ready_seconds: float) -> None:
        self.target = target
        self.launcher = launcher
        self.ready_seconds = ready_seconds
        self.attempts: list[Attempt] = []

    def begin(
        self,
        name: str,
        spec: JobSpec,
        resume: Resume | None = None,
        devices: str | None = None,
        fault: str = "",
    ) -> Attempt:
        """Start a runner; on the target's device unless `devices` are said. `fault` is one of injected.FAULTS."""
        number = next(_numbers)
        scratch = self.target.folder / f"attempt-{number}"
        assignment = Assignment(
            job=f"{name}@{fault}" if fault else name,
            attempt=number,
            spec=spec,
            plan=self.target.plan(spec),
            dataset=self.dataset(spec.data),
            scratch=scratch,
            resume=resume,
        )
        attempt = Attempt(self.launcher, assignment, self.target.token if devices is None else devices)
        self.attempts.append(attempt)
        return attempt

    def run(self, name: str, spec: JobSpec, seconds: float, **options: Any) -> tuple[Attempt, Frame]:
        """One attempt from its beginning to its end."""
        attempt = self.begin(name, spec, **options)
        return attempt, attempt.ended(seconds)

    def dataset(self, data: DataSpec) -> Path:
        return dataset(data, self.target.folder / "datasets")

    def zygote_environment(self) -> dict[str, str]:
        """What the zygote was started with."""
        lines = Path(f"/proc/{self.launcher.pid}/environ").read_text().split("\0")
        return dict(line.split("=", 1) for line in lines if "=" in line)


@contextmanager
def service(target: Target) -> Iterator[Service]:
    """A zygote that is ready; it and its runners end with the block. Raises TooLate."""
    target.inject()
    launcher = ZygoteLauncher()
    launcher.start()
    began, attempts = time.monotonic(), list[Attempt]()
    try:
        if not launcher.wait_ready(READY_SECONDS):
            raise TooLate("the zygote is not ready")
        found = Service(target, launcher, time.monotonic() - began)
        attempts = found.attempts
        yield found
    finally:
        for attempt in attempts:
            attempt.process.kill()
        launcher.stop()
