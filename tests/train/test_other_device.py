"""A checkpoint from another kind of device: what it holds that this one has not, and where each tensor then lies."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from core.engine.events import CheckpointWritten, Started
from core.engine.optimizers import state_dict
from tests.train.runs import Train, Watcher, digests, job

META = torch.device("meta")  # a device that is not the CPU, and that every machine has


def stepped(kind: type[torch.optim.Optimizer], **options: Any) -> torch.optim.Optimizer:
    weight = nn.Parameter(torch.ones(3, 2))
    optimizer = kind([weight], lr=0.1, **options)  # type: ignore[call-arg]
    weight.grad = torch.full((3, 2), 0.5)
    optimizer.step()
    return optimizer


def on_meta(kind: type[torch.optim.Optimizer], **options: Any) -> torch.optim.Optimizer:
    return kind([nn.Parameter(torch.ones(3, 2, device=META))], lr=0.1, **options)  # type: ignore[call-arg]


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.Adadelta, torch.optim.ASGD])
def test_state_written_on_a_cpu_goes_with_the_parameters(kind: type[torch.optim.Optimizer]) -> None:
    found = state_dict.pack_state({"it": stepped(kind)}, "o.")
    other = on_meta(kind)
    state_dict.unpack_state(found, "o.", {"it": other})
    (state,) = other.state.values()
    places = {name: (value.ndim, value.device.type) for name, value in state.items()}
    assert {place for dims, place in places.values() if dims} == {"meta"}
    assert {place for dims, place in places.values() if not dims} <= {"cpu"}


def test_state_of_a_gpu_that_an_optimizer_keeps_on_the_host_stays_there() -> None:
    optimizer = stepped(torch.optim.Adam)
    found = state_dict.pack_state({"it": optimizer}, "o.")
    text = json.loads(bytes(found["o.tree"].tolist()))
    ((_, state),) = text["it"]["dict"][0][1]["dict"]
    for name, leaf in state["dict"]:
        leaf["tensor"][2] = "cpu" if name == "exp_avg_sq" else "cuda"
    found["o.tree"] = torch.frombuffer(bytearray(json.dumps(text).encode()), dtype=torch.uint8)
    other = on_meta(torch.optim.Adam)
    state_dict.unpack_state(found, "o.", {"it": other})
    (state,) = other.state.values()
    assert (state["exp_avg"].device.type, state["exp_avg_sq"].device.type) == ("meta", "cpu")


def from_a_gpu(checkpoint: CheckpointWritten, folder: Path) -> CheckpointWritten:
    """The same checkpoint as a GPU would have written it: one generator more, and another environment."""
    shutil.copytree(checkpoint.folder, folder)
    state = folder / "state.safetensors"
    save_file({**load_file(state), "rng.cuda": torch.zeros(16, dtype=torch.uint8)}, state)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["state"]["sha256"] = hashlib.sha256(state.read_bytes()).hexdigest()
    manifest["environment"] |= {"kind": "cuda", "device": "NVIDIA H200"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return replace(checkpoint, folder=str(folder))


def test_a_job_from_a_gpu_goes_on_here_and_says_that_it_is_approximate(run: Train, tmp_path: Path) -> None:
    spec = job(optimizer={"name": "adam", "lr": 0.01}, deterministic=False)
    _, whole = run(spec)
    _, first = run(spec, Watcher(stop_after=5))
    ending, second = run(spec, None, from_a_gpu(first.checkpoints()[5], tmp_path / "gpu"))
    assert ending.outcome == "succeeded"
    (started,) = [event for event in second.events if isinstance(event, Started)]
    said = started.environment["resume"]
    assert said["fidelity"] == "approximate"
    assert "kind: cuda before, cpu now" in said["reasons"]
    # Only the words differ here: the numbers are those of this machine all along.
    assert digests(second.checkpoints()[24]) == digests(whole.checkpoints()[24])
