"""Open the dataset of an assignment: a built-in one is a file, a prepared one a folder."""

from pathlib import Path

import torch

from core.engine.datasets.loaded import LoadedDataset
from core.engine.datasets.prepared import load_prepared
from core.engine.datasets.resident import load_resident
from core.engine.datasets.split import Split
from core.engine.liveness import ReportAlive, report_nothing
from core.recipe.data import Dataset, DataSpec
from core.recipe.plan import ExecutionPlan, choose_data_access


def load_dataset(
    spec: DataSpec, path: Path, device: torch.device, plan: ExecutionPlan, report_alive: ReportAlive = report_nothing
) -> LoadedDataset[Split]:
    """The splits as the network reads them. Raises EngineError(bad_data) if the data do not fit the spec."""
    if isinstance(spec, Dataset):
        access = plan.data_access or choose_data_access(spec) or "mapped"
        return load_prepared(spec, path, device, access, report_alive)
    return load_resident(spec, path, device, plan.dataset_sha256, report_alive)
