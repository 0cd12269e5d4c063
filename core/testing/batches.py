"""A job and a batch for the contracts of losses and metrics."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from core.engine.datasets.resident import TensorSplit
from core.engine.evaluation.measure import MeasureInputs
from core.recipe.named import NamedComponent
from core.testing.runs import SMALL_JOB, parse_small_job

DATA: Final[Mapping[str, Any]] = {"classification": SMALL_JOB["data"], "regression": {"name": "diabetes"}}
EXAMPLES: Final = 12
CUT: Final = 5
"""Where the batch is cut into two parts of unequal sizes."""


@dataclass(frozen=True, slots=True)
class ContractBatch:
    """`outputs` float64 (12, outputs) of a network, `targets` as the data has them, and what a builder gets."""

    outputs: Tensor
    targets: Tensor
    inputs: MeasureInputs

    @property
    def split(self) -> TensorSplit:
        """The batch as a whole split; its inputs are never read."""
        return TensorSplit(self.outputs, self.targets)


def make_batch(spec: NamedComponent, fields: Mapping[str, Any]) -> ContractBatch:
    """For a job with these fields, by default on data of the first task of the component."""
    job = parse_small_job(job_fields(spec, fields))
    facts, generator = job.data.facts(), torch.Generator().manual_seed(0)
    outputs, other = torch.randn(2, EXAMPLES, facts.outputs, generator=generator, dtype=torch.float64)
    targets = torch.arange(EXAMPLES) % facts.outputs if facts.task == "classification" else other
    return ContractBatch(outputs, targets, MeasureInputs(job, train_targets=targets))


def job_fields(spec: NamedComponent, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the job, with data that fit the component."""
    task = spec.tasks[0]
    assert task in DATA or "data" in fields, f"the contract has no data for a {task}: give `data` and `model`"
    return {"data": DATA.get(task), **fields}
