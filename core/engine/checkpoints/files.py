"""Checkpoint folders: tensors as safetensors, the rest as JSON beside them; durably on disk before they are reported.

A folder holds weights.safetensors (the network under its state_dict names, and standardize.*), for a resumable one
state.safetensors (optimizer, averages, best weights, random state, open log window), and manifest.json. The tensor
files are functions of their tensors alone: equal states have equal SHA-256.

A tensor that has several names in the state_dict (weights that layers share) is stored once. The manifest then has
`aliases`: further name -> the name in the file.
"""

import json
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from core.durable import sync_folder
from core.engine.failure import EngineError
from core.engine.liveness import Piece, ReportAlive, report_each, report_nothing
from core.machine_failure import is_machine_failure
from core.recipe.assignment import Resume

WEIGHTS, STATE, MANIFEST = "weights", "state", "manifest"
NAMES = {WEIGHTS: "weights.safetensors", STATE: "state.safetensors", MANIFEST: "manifest.json"}
PIECE = 1 << 20  # bytes hashed and written at a time
UNSYNCED = 256 << 20  # bytes that may wait for the disk: one flush of a whole large file takes long without a heartbeat
REMEDY = "Resume from another checkpoint, or start the job again."

Files = dict[str, dict[str, Any]]


def write_tensor_files(
    folder: Path, tensors: Mapping[str, dict[str, Tensor]], report_alive: ReportAlive = report_nothing
) -> Files:
    """Make `folder` and write its tensor files, by role (weights, state); returns name, sha256 and bytes of each."""
    folder.mkdir(parents=True)
    return {role: write_tensors(folder / NAMES[role], content, report_alive) for role, content in tensors.items()}


def write_manifest(folder: Path, files: Files, manifest: dict[str, Any]) -> Files:
    """Write the manifest, sync the folder and its parent to the disk, and return all files of the folder."""
    text = json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False)
    sealed = {**files, MANIFEST: write_bytes(folder / NAMES[MANIFEST], text.encode())}
    sync_folder(folder)
    sync_folder(folder.parent)
    return sealed


def write_tensors(path: Path, tensors: dict[str, Tensor], report_alive: ReportAlive = report_nothing) -> dict[str, Any]:
    """One safetensors file without metadata (whose keys safetensors would order at random)."""
    return write_bytes(path, _serialise_tensors(tensors, report_alive), report_alive)


def describe_tensor_files(
    tensors: Mapping[str, dict[str, Tensor]], report_alive: ReportAlive = report_nothing
) -> Files:
    """The result of `write_tensor_files`, without writing a file."""
    contents = {role: _serialise_tensors(content, report_alive) for role, content in tensors.items()}
    return {
        role: {"name": NAMES[role], "sha256": sha256(content).hexdigest(), "bytes": len(content)}
        for role, content in contents.items()
    }


def _serialise_tensors(tensors: dict[str, Tensor], report_alive: ReportAlive) -> bytes:
    named = report_each(report_alive, "checkpoint", tensors.items())
    return save({name: tensor.detach().cpu().clone().contiguous() for name, tensor in named})


def write_bytes(
    path: Path,
    content: bytes,
    report_alive: ReportAlive = report_nothing,
    *,
    piece_bytes: int = PIECE,
    unsynced_bytes: int = UNSYNCED,
) -> dict[str, Any]:
    """Write a new file, hash it and flush it to the disk; returns its name, sha256 and bytes."""
    digest, view = sha256(), memoryview(content)
    with path.open("xb") as file:
        for start in report_each(report_alive, "checkpoint", range(0, len(view), piece_bytes)):
            piece = view[start : start + piece_bytes]
            digest.update(piece)
            file.write(piece)
            if start and start % unsynced_bytes == 0:
                file.flush()
                os.fsync(file.fileno())
        file.flush()
        os.fsync(file.fileno())
    return {"name": path.name, "sha256": digest.hexdigest(), "bytes": len(view)}


def chain_digest(digest: str, files: Files) -> str:
    """The next link of the digest chain: one hash over every deterministic checkpoint so far."""
    return sha256("".join((digest, files[WEIGHTS]["sha256"], files[STATE]["sha256"])).encode()).hexdigest()


def read_resume(
    resume: Resume, report_alive: ReportAlive = report_nothing
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(weights, state) of a checkpoint, after their digests are checked against its manifest.

    The weights have all of their names, aliases included. Raises EngineError if a file was changed or cannot be read.
    """
    weights, state = (
        _read_tensors(path, resume.manifest, role, report_alive)
        for path, role in ((resume.weights, WEIGHTS), (resume.state, STATE))
    )
    return add_aliases(weights, resume.manifest), state


def add_aliases(weights: Mapping[str, Tensor], manifest: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a weights file under all names in the manifest, as load_state_dict() takes them."""
    aliases: dict[str, str] = manifest.get("aliases", {})
    if missing := sorted(set(aliases.values()) - weights.keys()):
        message = f"the checkpoint's manifest gives further names to tensors that are not there: {', '.join(missing)}"
        raise EngineError("engine_error", message, REMEDY)
    return {**weights, **{alias: weights[name] for alias, name in aliases.items()}}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file whose digest the caller has checked. Raises EngineError if it is unreadable."""
    try:
        return load_tensors(path)
    except (OSError, SafetensorError) as error:
        if is_machine_failure(error):
            raise
        raise EngineError("engine_error", f"cannot read the weights to begin with: {error}", REMEDY) from error


def file_digest(path: Path, report_alive: ReportAlive, piece: Piece, *, piece_bytes: int = PIECE) -> str:
    """The SHA-256 of a file, as hex digits."""
    digest = sha256()
    with path.open("rb") as file:
        for content in report_each(report_alive, piece, iter(lambda: file.read(piece_bytes), b"")):
            digest.update(content)
    return digest.hexdigest()


def load_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, each in its own memory with torch's alignment.

    Tensors mapped from the file have any alignment. Matrix products round differently with other alignments, so a
    resume would compute other last bits. safetensors reports errors of the machine without errno, so the file is opened
    here first.
    """
    with path.open("rb"):
        return {name: tensor.clone() for name, tensor in load_file(path).items()}


def _read_tensors(path: Path, manifest: dict[str, Any], role: str, report_alive: ReportAlive) -> dict[str, Tensor]:
    try:
        expected = manifest["files"][role]["sha256"]
        if file_digest(path, report_alive, "checkpoint") != expected:
            raise EngineError("engine_error", f"the checkpoint's {role} file was changed or cut short", REMEDY)
        return load_tensors(path)
    except (OSError, KeyError, TypeError, SafetensorError) as error:
        if is_machine_failure(error):
            raise
        raise EngineError("engine_error", f"cannot read the checkpoint's {role}: {error}", REMEDY) from error


def check_tensors(what: str, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raises EngineError that names every tensor that is missing, unknown, or of another shape or type."""
    problems = [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
    problems += [f"{name} is not known" for name in sorted(found.keys() - expected.keys())]
    for name in sorted(expected.keys() & found.keys()):
        is_, should = found[name], expected[name]
        if (is_.shape, is_.dtype) != (should.shape, should.dtype):
            problems.append(f"{name} is {is_.dtype} {tuple(is_.shape)}, not {should.dtype} {tuple(should.shape)}")
    if problems:
        raise EngineError("engine_error", f"the checkpoint's {what} do not fit this job: {'; '.join(problems)}", REMEDY)
