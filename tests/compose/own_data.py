"""A file that is uploaded to the stack, prepared behind the parser's isolation in its container, and trained on."""

import json
from pathlib import Path
from typing import Any

from tests.compose.docker import Stack, tell, until

PENGUINS = Path(__file__).resolve().parents[2] / "examples/data/penguins.csv"
SPEC = {
    "model": {"name": "mlp", "hidden": [32]},
    "data": {"name": "dataset", "dataset": "penguins", "target": "species"},
    "optimizer": {"name": "adamw", "lr": 0.01},
    "epochs": 40,
}


def train_on_upload(stack: Stack) -> None:
    """A table with missing values and categories; the parser must have every wall that the kernel has."""
    options = (
        "--request",
        "POST",
        "--header",
        "Content-Type: application/octet-stream",
        "--data-binary",
        f"@{PENGUINS}",
    )
    made = json.loads(stack.curl("/v1/datasets?name=penguins&format=csv", *options))
    path = f"/v1/datasets/{made['id']}"
    found = until("the dataset is prepared", lambda: settled(stack, path), 120)
    assert (found["status"], found["examples"]) == ("ready", 344), found
    walls = found["confined"]["walls"]
    assert "seccomp" in walls, walls
    body = ("--header", "Content-Type: application/json", "--data", "@-")
    job = json.loads(stack.curl("/v1/jobs", *body, told=json.dumps(SPEC)))["id"]
    ended = until("the job ends", lambda: over(stack, f"/v1/jobs/{job}"), 120)
    assert ended["status"] == "succeeded", ended
    accuracy = ended["results"]["base"]["test"]["accuracy"]
    assert accuracy > 0.9, accuracy
    tell(f"own data: 344 rows prepared ({', '.join(walls)}), test accuracy {accuracy:.4f}")


def settled(stack: Stack, path: str) -> dict[str, Any] | None:
    found = stack.get(path)
    return None if found["status"] in {"queued", "preparing"} else found


def over(stack: Stack, path: str) -> dict[str, Any] | None:
    found = stack.get(path)
    return found if found["status"] in {"succeeded", "failed", "cancelled"} else None
