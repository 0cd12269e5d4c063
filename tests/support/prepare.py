"""Prepare processes for tests: the real one on a file, or code that runs inside its walls."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.recipe.data.manifest import DatasetManifest
from core.recipe.prepare import PrepareSpec
from worker import wire
from worker.launcher import ProcessExit, RunnerProcess
from worker.prepare.formats import check_options, load_reader
from worker.prepare.launch import Confinement, PrepareLauncher, parser_environment
from worker.prepare.report import FileProblem, Refused, Report
from worker.prepare.sniff import guess_format
from worker.prepare.source import InputFile
from worker.prepare.writer import DatasetWriter

DATASET = "ds_01jd0000000000000000000000"
ROOT = Path(__file__).parents[2]


def prepare_spec(**fields: Any) -> PrepareSpec:
    """A spec as it comes from a request."""
    return PrepareSpec.model_validate_json(json.dumps({"dataset": DATASET, **fields}))


@dataclass
class Prepared:
    """What one prepare process has sent, and how it ended."""

    folder: Path
    frames: list[dict[str, Any]] = field(default_factory=list)
    exit: ProcessExit | None = None
    stderr: str = ""

    @property
    def ended(self) -> dict[str, Any] | None:
        return next((frame for frame in self.frames if frame["type"] == "ended"), None)

    def manifest(self) -> DatasetManifest:
        return DatasetManifest.model_validate_json((self.folder / "manifest.json").read_text())


def launch(source: Path, scratch: Path, confinement: Confinement = "best", **spec: Any) -> tuple[RunnerProcess, Path]:
    """The process for one file, with its assignment sent; and its output folder."""
    out = scratch / "out"
    out.mkdir()
    fd = os.open(source, os.O_RDONLY)
    runner = PrepareLauncher(confinement).launch(scratch / "stderr", fd, out)
    os.close(fd)
    assignment = {"job": "prep_1", "kind": "prepare", "spec": prepare_spec(**spec).dump()}
    runner.sock.sendall(wire.pack_frame("assignment", "prep_1", {"assignment": assignment}))
    return runner, out


def prepare_confined(source: Path, scratch: Path, confinement: Confinement = "best", **spec: Any) -> Prepared:
    """One file through the real process, walls and all."""
    runner, out = launch(source, scratch, confinement, **spec)
    made = Prepared(out, list(iter(lambda: wire.receive_frame(runner.sock), None)))
    made.exit = runner.wait(60)
    made.stderr = (scratch / "stderr").read_text()
    runner.sock.close()
    return made


def guess_here(source: Path) -> str:
    """The format of a file. Raises Refused."""
    with source.open("rb") as file:
        return guess_format(InputFile(file.fileno()), prepare_spec(), Report(lambda _kind, _fields: None))


def prepare_here(source: Path, scratch: Path, **fields: Any) -> DatasetManifest:
    """One file through the same reader, in this process. Raises Refused."""
    spec = prepare_spec(**{"filename": source.name, **fields})
    report = Report(lambda _kind, _fields: None)
    scratch.mkdir(parents=True, exist_ok=True)
    fd = os.open(source, os.O_RDONLY)
    try:
        content = InputFile(fd, spec.filename)
        name = guess_format(content, spec, report) if spec.format == "auto" else spec.format
        check_options(name, spec, report)
        out = DatasetWriter(scratch, content, spec, report)
        load_reader(name)(content, spec, out, report)
        report.check()
    finally:
        os.close(fd)
    assert out.manifest is not None
    return out.manifest


def refusal_of(source: Path, scratch: Path, **fields: Any) -> FileProblem:
    """The first error of a file that must be refused."""
    try:
        prepare_here(source, scratch, **fields)
    except Refused as refused:
        return refused.errors[0]
    raise AssertionError("the file was accepted")


def run_confined(
    code: str, folder: Path, environment: dict[str, str] | None = None, *, walls: bool = True, **limits: int
) -> dict[str, Any]:
    """Run `code` in a fresh process behind the walls; it fills the dict `seen`, which comes back.

    Before the walls it has imported what parsers import; `before` of the environment is code to run then.
    """
    raised = "list(confine_process(folder, limits, required=False))" if walls else "[]"
    script = f"""
import json, os, sys, ctypes, socket, threading, mmap
from pathlib import Path
from worker.prepare.confine import ProcessLimits, confine_process
from worker.prepare.preload import preload_parsers
preload_parsers()
folder, parent, seen = Path(sys.argv[1]), int(sys.argv[2]), {{}}
exec(os.environ.get("before", ""))
limits = ProcessLimits(**({{"cpu_seconds": 60, "file_bytes": 1 << 30}} | json.loads(sys.argv[3])))
seen["walls"] = {raised}
{code}
os.write(1, json.dumps(seen).encode())
os._exit(0)
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", script, str(folder), str(os.getpid()), json.dumps(limits)],
        env=parser_environment(os.environ, folder) | (environment or {}),
        capture_output=True,
        timeout=120,
        check=False,
    )
    if done.returncode != 0:
        return {"exit": done.returncode, "stderr": done.stderr.decode(errors="replace")}
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def frames_until(runner: RunnerProcess, kind: str) -> Iterator[dict[str, Any]]:
    """The frames of a process up to the first of this type."""
    while (frame := wire.receive_frame(runner.sock)) is not None:
        yield frame
        if frame["type"] == kind:
            return
