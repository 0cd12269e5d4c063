"""Every kind of analysis on the device and on the CPU: the same numbers, but for rounding."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from core.engine.events import CheckpointWritten
from core.non_finite import encode_non_finite
from core.recipe.analyses import AnalysisSpec, analysis_classes
from core.recipe.plan import SlotKind
from core.recipe.spec import JobSpec
from tests.gpu.check.data import dataset
from tests.gpu.check.report import Report
from tests.gpu.check.target import Target
from tests.gpu.specs import IMAGES
from tests.support.specs import analysis_of
from tests.train.looks import Look, Looked, looked, looker, reading
from tests.train.runs import Train, Watcher, job

Subjects = Sequence[tuple[JobSpec, CheckpointWritten | None]]

OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "landscape": {"steps": 5},
    "trajectory": {"steps": 5},
    "interpolation": {"steps": 5},
    "connect": {"epochs": 3, "points": 5},
    "sharpness": {"lanczos_steps": 20},
    "critical_point": {"lanczos_steps": 20, "points": 5},
    "lr_range": {"steps": 40, "high": 1.0},
    "gradient_noise": {"draws": 20, "small": 4, "large": 16},
}
CLOSE: Final = 0.02  # relative, and of the largest number beside it
TINY: Final = 1e-9
ENOUGH: Final = 0.9  # of the numbers
FEWER: Final = {"critical_point": 0.6, "connect": 0.8, "lr_range": 0.8}  # an eigenvector has no sign; training drifts


def analyses(target: Target, report: Report, run: Train) -> None:
    """Of the checkpoints of one small job, trained on the CPU."""
    spec = job(model={"name": "mlp", "hidden": [16]}, data=IMAGES, epochs=6, checkpoints={"every": "12st"})
    _, watcher = run(spec)
    subjects = [(spec, written) for written in watcher.checkpoints().values()]
    made = partial(dataset, folder=target.folder / "datasets")
    slots: tuple[SlotKind, SlotKind] = (target.slot, "cpu")
    folders = [target.folder / f"looks-{number}" for number in range(2)]
    for folder in folders:
        folder.mkdir()
    looks = [looker(folder, made, slot) for folder, slot in zip(folders, slots, strict=True)]
    for kind, each in analysis_classes().items():
        if not issubclass(each, AnalysisSpec):
            continue
        with report.finding(f"{kind}: as on a CPU") as close:
            several = each.fewest > 1 or kind in {"trajectory", "gradient_noise"}
            chosen = subjects[:2] if each.most == 2 or kind == "average" else subjects if several else subjects[-1:]
            on_device, on_cpu = (_looked(look, chosen, kind) for look in looks)
            share, worst = agreement(on_device.numbers, on_cpu.numbers)
            fits = on_device.ended.outcome == on_cpu.ended.outcome == "succeeded" and share >= FEWER.get(kind, ENOUGH)
            close.says(fits, f"{worst}; {on_device.ended.error}", share, "of the numbers agree")
    with report.finding("assembly: as on a CPU") as close:
        joined = [_joined(*each, subjects[-1:]) for each in zip(looks, folders, slots, strict=True)]
        share, worst = agreement(joined[0].numbers, joined[1].numbers)
        close.says(share >= ENOUGH, f"{worst}; {joined[0].ended.error}", share, "of the numbers agree")


def _joined(look: Look, folder: Path, slot: SlotKind, subjects: Subjects) -> Looked:
    """A landscape of two parts, put together."""
    parts = [look(subjects, kind="landscape", steps=5, part={"number": number, "of": 2}) for number in (1, 2)]
    spec = analysis_of({"kind": "assembly", "analyses": [f"an_{number:026d}" for number in range(2)]})
    readings = tuple(reading(part, f"part {number}") for number, part in enumerate(parts, 1))
    return looked(spec, folder / "joined", Watcher(), slot=slot, readings=readings)


def _looked(look: Look, subjects: Subjects, kind: str) -> Looked:
    return look(subjects, kind=kind, **OPTIONS.get(kind, {}))


def agreement(found: Any, expected: Any) -> tuple[float, str]:
    """The share of numbers that are close, and the worst of the others."""
    pairs = list(_pairs(encode_non_finite(found), encode_non_finite(expected), ""))
    if not pairs:
        return 0.0, "there are no numbers"
    apart = [(abs(one - other) / max(abs(one), abs(other), scale, TINY), name) for one, other, scale, name in pairs]
    worst = max(apart)
    return sum(each <= CLOSE for each, _ in apart) / len(apart), f"the worst is {worst[1]}, {worst[0]:.1e} apart"


def _pairs(found: Any, expected: Any, name: str, scale: float = TINY) -> Iterator[tuple[float, float, float, str]]:
    """Numbers at the same place, with the size of those in the same list; what is missing is infinitely far."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in expected.keys() | found.keys():
            yield from _pairs(found.get(key), expected.get(key), f"{name}/{key}")
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        numbers = [abs(each) for each in expected if isinstance(each, int | float)]
        for place, (one, other) in enumerate(zip(found, expected, strict=True)):
            yield from _pairs(one, other, f"{name}/{place}", max(numbers, default=scale))
    elif isinstance(expected, float) and isinstance(found, float | int):
        yield float(found), expected, scale, name
    elif isinstance(expected, float) or isinstance(found, float):
        yield math.inf, 1.0, scale, name
