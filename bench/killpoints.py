"""Jobs that are killed repeatedly at random moments, and must end with the bits of the same jobs without kills.

python -m bench.killpoints [--kills 200] [--recipe NAME] [--seed 0]     runners of the engine, for each of six recipes
python -m bench.killpoints --service 20                                 runner, zygote or worker of a whole service

The first form kills runners as a worker starts them, with SIGKILL, at a random moment between order and end; the next
runner continues from the last checkpoint that was reported. Compared at the end: weights, optimizer and all other state
of the checkpoint, the chain of digests, every point of every series, the results. One core is enough; a recipe takes
one to two minutes.
"""

import argparse
import json
import os
import random
import select
import signal
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from core.db.migrate import upgrade_schema
from core.recipe.assignment import Assignment, Resume
from core.recipe.data.materialise import materialise_dataset, read_data
from core.recipe.plan import resolve_plan
from core.recipe.spec import JobSpec
from tests.faults.conftest import SPEC, Truth, assert_same, undisturbed
from tests.support.broker import running_broker
from tests.support.service import Part, Service, make_home, until
from tests.train.recipes import RECIPES
from worker import wire
from worker.launcher import Launcher, best_launcher

FOREVER = 120.0
STARTING = 0.15  # share of the kills that may hit a runner before it has begun
EPOCHS = 120  # of a job that is killed in a service
PARTS = ("runner", "zygote", "worker")
Frame = dict[str, Any]
Points = dict[str, list[tuple[int, float]]]


@dataclass
class Record:
    """The output of a job, as a recorder keeps it: points after the last checkpoint do not count."""

    points: Points = field(default_factory=lambda: defaultdict(list))
    open: Points = field(default_factory=lambda: defaultdict(list))
    files: dict[tuple[str, int], dict[str, str]] = field(default_factory=dict)
    last: Frame | None = None
    ended: Frame | None = None

    def take(self, frame: Frame) -> None:
        match frame["type"]:
            case "points":
                for name, (steps, values, _) in frame["series"].items():
                    self.open[name] += zip(steps, values, strict=True)
            case "checkpoint":
                key = frame["kind"], frame["step"]
                self.files[key] = {role: each["sha256"] for role, each in frame["files"].items() if role != "manifest"}
                if frame["resumable"]:
                    self.last = frame
                    self.close()
            case "ended":
                self.ended = frame
                self.close()

    def close(self) -> None:
        for name, points in self.open.items():
            self.points[name] += points
        self.open.clear()

    @property
    def step(self) -> int:
        return int(self.last["step"]) if self.last else 0

    def outcome(self) -> dict[str, Any]:
        """Everything that has to be equal."""
        if self.last is None or self.ended is None:
            raise RuntimeError("the job has not ended")
        newest = {kind: files for (kind, _), files in sorted(self.files.items())}
        points = {name: each for name, each in self.points.items() if name != "throughput"}
        results, digest = self.ended["results"], self.last["manifest"]["digest"]
        return {"files": newest, "digest": digest, "points": points, "results": results, "step": self.step}


@dataclass
class Bench:
    """Runners of one recipe, one after the other."""

    launcher: Launcher
    spec: JobSpec
    dataset: Path
    folder: Path
    chance: random.Random
    lives: int = 0

    def live(self, record: Record, seconds: float | None, *, starting: bool = False) -> tuple[bool, int]:
        """Start one runner; kill it `seconds` after it has begun, or with `starting` after its order.

        Returns whether it was killed before its end, and the last step that it reported.
        """
        self.lives += 1
        runner = self.launcher.launch(self.folder / "stderr", None)
        runner.sock.sendall(wire.pack_frame("assignment", "job_bench", {"assignment": self.assignment(record).dump()}))
        splitter, deadline, killed, step = wire.FrameSplitter(), time.monotonic() + FOREVER, False, record.step
        if seconds is not None and starting:
            deadline = time.monotonic() + seconds
        while True:
            wait = max(0.0, deadline - time.monotonic())
            if not killed and not select.select([runner.sock], [], [], wait)[0]:
                runner.kill()
                killed = True
            data = b""
            with suppress(ConnectionResetError):  # killed before it had read its order
                data = runner.sock.recv(1 << 18)
            for payload in splitter.feed_bytes(data):
                frame = wire.unpack_payload(payload)
                record.take(frame)
                if frame["type"] == "started" and seconds is not None and not starting:
                    deadline = time.monotonic() + seconds
                if frame["type"] == "progress":
                    step = int(frame["step"])
            if not data:
                break
        runner.sock.close()
        if runner.wait(FOREVER) is None:
            raise TimeoutError("a runner does not end")
        record.open.clear()
        return killed and record.ended is None, step

    def assignment(self, record: Record) -> Assignment:
        scratch = self.folder / str(self.lives)
        scratch.mkdir()
        resume = None
        if record.last is not None:
            folder = Path(record.last["folder"])
            manifest = json.loads((folder / "manifest.json").read_text())
            files = (folder / f"{role}.safetensors" for role in ("weights", "state"))
            resume = Resume(weights=next(files), state=next(files), manifest=manifest)
        return Assignment(
            job="job_bench",
            attempt=self.lives,
            spec=self.spec,
            plan=resolve_plan(self.spec, "cpu"),
            dataset=self.dataset,
            scratch=scratch,
            resume=resume,
        )

    def reference(self) -> tuple[dict[str, Any], float]:
        """The outcome without kills, and the seconds that it takes from its beginning."""
        self.live(Record(), None)  # a warm-up
        record, begun = Record(), time.monotonic()
        self.live(record, None)
        return record.outcome(), time.monotonic() - begun


def kill_runners(bench: Bench, kills: int) -> str:
    """Kill runners `kills` times, over as many jobs as that takes; returns a row of the table."""
    expected, seconds = bench.reference()
    done, jobs, lost, idle = 0, 0, 0, 0
    while done < kills:
        record = Record()
        while record.ended is None:
            starting = bench.chance.random() < STARTING
            killed, step = bench.live(record, bench.chance.uniform(0.0, 0.6 * seconds), starting=starting)
            done += killed
            idle += killed and step == record.step
            lost += max(0, step - record.step) if killed else 0
        if record.outcome() != expected:
            raise AssertionError(f"job {jobs} of this recipe ended otherwise: see {bench.folder}")
        jobs += 1
    return f"{done} | {jobs} | {jobs} | {done - idle} | {lost}"


@contextmanager
def launching() -> Iterator[Launcher]:
    launcher = best_launcher()
    launcher.start()
    try:
        if not launcher.wait_ready(FOREVER):
            raise TimeoutError("no runner can be started")
        yield launcher
    finally:
        launcher.stop()


def engine(names: list[str], kills: int, seed: int) -> None:
    print("| recipe | kills | jobs | bit-equal | kills that cost steps | steps made again |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in names:
        with tempfile.TemporaryDirectory() as folder, launching() as launcher:
            spec = RECIPES[name]
            chance = random.Random(f"{seed} {name}")
            bench = Bench(launcher, spec, materialise_dataset(spec.data, Path(folder)), Path(folder), chance)
            print(f"| {name} | {kill_runners(bench, kills)} |", flush=True)


def victim(worker: Part, part: str) -> psutil.Process:
    if part == "worker":
        return psutil.Process(worker.pid)
    return until(f"a {part}", lambda: worker.zygote() if part == "zygote" else next(iter(worker.runners()), None))


def killed_job(service: Service, truth: Truth, chance: random.Random, parts: Sequence[str]) -> list[str]:
    """Run one job and kill these parts at random moments, one after the other; returns those killed before its end."""
    job_id, killed = service.submit(truth.spec), []
    for part in parts:
        service.when(job_id, lambda job: job["status"] in {"running", "succeeded", "failed"})
        time.sleep(chance.uniform(0.0, 4.0))
        job = service.job(job_id)
        if job["status"] != "running":
            break
        worker, attempt = service.worker, job["attempt"]
        os.kill(victim(worker, part).pid, signal.SIGKILL)
        if part == "worker":
            worker.wait(10.0)
        service.heal()
        service.when(job_id, lambda job, attempt=attempt: job["attempt"] > attempt or job["finished_at"])
        killed.append(part)
    assert_same(service, job_id, truth)
    return killed


def whole_service(kills: int, seed: int) -> None:
    chance, found, jobs = random.Random(seed), Counter[str](), 0
    with tempfile.TemporaryDirectory() as aside, running_broker() as broker:
        folder = Path(aside)
        home = make_home(folder / "home", lambda name: materialise_dataset(read_data(name), folder / "datasets"))
        (folder / "undisturbed").mkdir()
        truth = undisturbed(SPEC | {"epochs": EPOCHS}, home / "datasets", folder / "undisturbed")
        url = f"sqlite:///{folder / 'basin.db'}"
        upgrade_schema(url)
        service = Service(home, url, broker.url)
        service.environment["BASIN_MAX_LOSSES"] = "99"  # a moment at random may come before every checkpoint
        service.heal()
        try:
            while found.total() < kills:
                parts = chance.sample(PARTS + PARTS[:1], len(PARTS) + 1)[: kills - found.total()]
                found.update(killed_job(service, truth, chance, parts))
                jobs += 1
        finally:
            service.stop()
    print(f"{found.total()} kills ({dict(found)}) of {jobs} jobs: every one ended as the undisturbed one")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="for each recipe")
    parser.add_argument("--recipe", choices=sorted(RECIPES), help="this one alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--service", type=int, metavar="KILLS", help="kill processes of a whole service instead")
    options = parser.parse_args()
    if options.service:
        whole_service(options.service, options.seed)
    else:
        engine([options.recipe] if options.recipe else list(RECIPES), options.kills, options.seed)


if __name__ == "__main__":
    main()
