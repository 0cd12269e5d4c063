"""Analyses of networks that were trained on a prepared dataset: mapped and resident give the same arrays."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.engine.datasets import load
from tests.support.prepared import job_on
from tests.train.looks import looker
from tests.train.runs import trainer
from tests.train.test_prepared import pictures

LOOKS: dict[str, dict[str, Any]] = {
    "landscape": {"steps": 3, "bn": "reestimate", "splits": ["train", "val"]},
    "sharpness": {"examples": 60},
    "gradient_noise": {"small": 8, "large": 64, "draws": 10},
    "lr_range": {"high": 1.0, "steps": 30},
}


@pytest.mark.parametrize("kind", LOOKS)
def test_an_analysis_reads_what_the_job_read(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = pictures(tmp_path / "images")
    model = {"name": "cnn", "channels": [4], "hidden": [8], "batch_norm": True}
    spec = job_on(manifest, {"augment": [{"op": "crop", "padding": 1}, {"op": "mixup"}]}, model=model, batch_size=7)
    (tmp_path / "runs").mkdir()
    _, watcher = trainer(tmp_path / "runs", lambda _: tmp_path / "images")(spec)
    written = watcher.checkpoints()[max(watcher.checkpoints())]
    look = looker(tmp_path, lambda _: tmp_path / "images")
    resident = look([(spec, written)], kind=kind, **LOOKS[kind])
    monkeypatch.setattr(load, "choose_data_access", lambda _: "mapped")
    mapped = look([(spec, written)], kind=kind, **LOOKS[kind])
    assert resident.arrays.keys() == mapped.arrays.keys() != set()
    for name, values in resident.arrays.items():
        np.testing.assert_array_equal(mapped.arrays[name], values)
