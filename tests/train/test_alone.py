"""The engine trains and warms up where the service's packages cannot be imported."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

BLOCKED = """
import sys
sys.modules.update(dict.fromkeys(%r))
"""
SERVICE = ["sqlalchemy", "celery", "kombu", "sklearn", "scipy", "fastapi", "pydantic_settings", "alembic", "psycopg"]

TRAIN = """
import json
from pathlib import Path
import torch
from core.engine.loop import train
from core.recipe.assignment import Assignment
from core.recipe.plan import resolve_plan
from core.recipe.spec import JobSpec
class Printer:
    def emit(self, event): print(type(event).__name__)
    def stop_request(self): return None
spec = JobSpec.model_validate_json(json.dumps({"model": {"name": "cnn", "channels": [2]}, "data": {"name": "digits"},
    "optimizer": {"name": "adam"}, "steps": 3, "swa": {"start": "1st", "every": "1st"}})).resolved()
ended = train(Assignment(job="j", attempt=1, spec=spec, plan=resolve_plan(spec, "cpu"), dataset=Path(sys.argv[1]),
    scratch=Path(sys.argv[2])), Printer())
assert not torch.cuda.is_initialized()
print(ended.outcome)
"""

WARM = """
import os, torch
from core.engine.preload import warm_up_torch
before = torch.default_generator.get_state()
warm_up_torch()
assert torch.equal(torch.default_generator.get_state(), before)
assert torch.get_num_threads() == 1
assert not torch.cuda.is_initialized()
loaded = set(sys.modules)
child = os.fork()
if child == 0:
    exec(sys.argv[3])
    late = sorted(name for name in set(sys.modules) - loaded if name.startswith(("torch", "numpy", "core")))
    assert not late, late
    sys.stdout.flush()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


def fresh(code: str, *arguments: object) -> list[str]:
    """Lines printed by a new interpreter in which the service's packages cannot be imported."""
    command = [sys.executable, "-c", BLOCKED % (SERVICE,) + code, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.slow
def test_it_trains_alone(tmp_path: Path, datasets: Callable[[str], Path]) -> None:
    """And touches no CUDA for a plan of a CPU: a process of its own knows, another test may have used a device."""
    lines = fresh(TRAIN, datasets("digits"), tmp_path / "scratch")
    assert lines[0] == "Started"
    assert lines[-1] == "succeeded"


def test_a_warm_process_forks_children_that_import_nothing_more(
    tmp_path: Path, datasets: Callable[[str], Path]
) -> None:
    """A late import of torch's compiler would cost each job a second, a driver that was touched its GPU."""
    lines = fresh(WARM, datasets("digits"), tmp_path / "scratch", TRAIN)
    assert lines[-1] == "succeeded"
