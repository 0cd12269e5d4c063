"""Learning rates against literals worked out by hand (or with bc), and against torch where torch is right."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from pydantic import TypeAdapter

from core.recipe.duration import RunLength
from core.recipe.schedules import Schedule

RUN = RunLength(steps_per_epoch=10, total_steps=100)
READ: TypeAdapter[Schedule] = TypeAdapter(Schedule)


def sequence(milestones: str, *members: str, warmup: int = 0) -> str:
    """A sequence as JSON; a member is its name and what else it says."""
    schedules = ", ".join(f'{{"name": {each}}}' for each in members)
    return f'{{"name": "sequence", "warmup": {warmup}, "milestones": {milestones}, "schedules": [{schedules}]}}'


def rate(document: str, lr: float = 0.1, run: RunLength = RUN) -> Callable[[int], float]:
    return READ.validate_json(document).compile_rate(lr, run)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ('{"name": "constant"}', {0: 0.1, 99: 0.1}),
        # warm-up over 4 steps: 1/4, 2/4, 3/4, 4/4 of the rate; then the schedule's own clock starts
        ('{"name": "constant", "warmup": "4st"}', {0: 0.025, 1: 0.05, 2: 0.075, 3: 0.1, 4: 0.1}),
        (
            '{"name": "step", "step_size": "3ep", "gamma": 0.5}',
            {0: 0.1, 29: 0.1, 30: 0.05, 59: 0.05, 60: 0.025, 90: 0.0125},
        ),
        ('{"name": "step", "step_size": 30, "warmup": 10}', {9: 0.1, 10: 0.1, 39: 0.1, 40: 0.01}),
        # 0.9^0.5 = 0.948683298…; one factor of gamma per epoch of ten steps
        ('{"name": "exponential", "gamma": 0.9}', {0: 0.1, 5: 0.09486832980505138, 10: 0.09, 20: 0.081}),
        ('{"name": "exponential", "gamma": 0.9, "staircase": true}', {0: 0.1, 9: 0.1, 10: 0.09, 19: 0.09, 20: 0.081}),
        # (1 + cos(pi/4)) / 2 = 0.853553390593…
        ('{"name": "cosine"}', {0: 0.1, 25: 0.08535533905932738, 50: 0.05, 75: 0.014644660940672627, 100: 0.0}),
        ('{"name": "cosine", "T_max": "50st", "eta_min": 0.02}', {0: 0.1, 25: 0.06, 50: 0.02, 51: 0.02, 99: 0.02}),
        ('{"name": "cosine", "warmup": "20st"}', {0: 0.005, 19: 0.1, 20: 0.1, 60: 0.05, 100: 0.0}),
        ('{"name": "linear"}', {0: 0.1, 50: 0.05, 99: 0.001, 100: 0.0}),
        (
            '{"name": "linear", "start_factor": 0.5, "end_factor": 1.0, "total_iters": 10}',
            {0: 0.05, 5: 0.075, 10: 0.1, 99: 0.1},
        ),
        (
            '{"name": "multistep", "milestones": ["3ep", "60st"], "gamma": 0.5}',
            {0: 0.1, 29: 0.1, 30: 0.05, 59: 0.05, 60: 0.025, 99: 0.025},
        ),
        ('{"name": "multistep", "milestones": [30], "warmup": 10}', {9: 0.1, 39: 0.1, 40: 0.01}),
        ('{"name": "polynomial"}', {0: 0.1, 50: 0.05, 99: 0.001, 100: 0.0}),
        ('{"name": "polynomial", "power": 2}', {0: 0.1, 50: 0.025, 90: 0.001}),
        # 1 - 20/36 = 16/36, whose root is 2/3
        (
            '{"name": "polynomial", "power": 0.5, "eta_min": 0.02, "total_iters": 36}',
            {20: 0.02 + 0.08 * 2 / 3, 36: 0.02, 99: 0.02},
        ),
        # √(4/5), √(4/16), √(4/100) times the rate; the peak is reached by step 3, the last of warm-up
        (
            '{"name": "inverse_sqrt", "warmup": 4}',
            {0: 0.025, 3: 0.1, 4: 0.08944271909999159, 15: 0.05, 99: 0.02},
        ),
        ('{"name": "inverse_sqrt"}', {0: 0.1, 3: 0.05, 24: 0.02, 99: 0.01}),
        (
            '{"name": "wsd", "decay": 20, "shape": "linear"}',
            {0: 0.1, 80: 0.1, 85: 0.075, 90: 0.05, 99: 0.005, 100: 0.0},
        ),
        ('{"name": "wsd", "decay": "2ep", "shape": "cosine"}', {80: 0.1, 85: 0.08535533905932738, 90: 0.05, 100: 0.0}),
        ('{"name": "wsd", "decay": "0.2run", "eta_min": 0.02}', {80: 0.1, 85: 0.06, 100: 0.02}),
        # a tenth of the run, 1 - √0.9 at its last step; warm-up does not move the end
        ('{"name": "wsd", "warmup": 20}', {0: 0.005, 20: 0.1, 90: 0.1, 99: 0.005131670194948623}),
    ],
)
def test_literals(document: str, expected: dict[int, float]) -> None:
    curve = rate(document)
    assert {t: curve(t) for t in expected} == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        # a line over the 20 steps of its own, then flat, then half a cosine over the last 40
        (
            sequence('[20, "0.6run"]', '"linear", "start_factor": 0.5, "end_factor": 1.0', '"constant"', '"cosine"'),
            {0: 0.05, 10: 0.075, 19: 0.0975, 20: 0.1, 59: 0.1, 60: 0.1, 70: 0.08535533905932738, 80: 0.05, 100: 0.0},
        ),
        # "0.1run" inside the second is 4 steps of its 40, and its step_size counts from step 60
        (
            sequence("[60]", '"constant"', '"step", "step_size": 10, "warmup": "0.1run"'),
            {59: 0.1, 60: 0.025, 63: 0.1, 64: 0.1, 73: 0.1, 74: 0.01, 84: 0.001},
        ),
        # the sequence's own warm-up comes first, and its milestones count from there
        (
            sequence("[20]", '"constant"', '"polynomial", "power": 2', warmup=10),
            {0: 0.01, 9: 0.1, 29: 0.1, 30: 0.1, 65: 0.025, 100: 0.0},
        ),
    ],
)
def test_sequences_by_hand(document: str, expected: dict[int, float]) -> None:
    curve = rate(document)
    assert {t: curve(t) for t in expected} == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(
    ("document", "pointers"),
    [
        ('{"name": "multistep", "milestones": [0, 5]}', ["/milestones/0"]),
        ('{"name": "multistep", "milestones": ["3ep", 30]}', ["/milestones/1"]),
        ('{"name": "multistep", "milestones": [50, 20, 60]}', ["/milestones/1"]),
        ('{"name": "multistep", "milestones": ["0.04ep"]}', ["/milestones/0"]),
        ('{"name": "polynomial", "total_iters": 0}', ["/total_iters"]),
        ('{"name": "wsd", "decay": "0.001run"}', ["/decay"]),
        ('{"name": "wsd", "decay": 60, "warmup": 41}', ["/decay"]),
        ('{"name": "wsd", "decay": 60, "warmup": 40}', []),
        (sequence("[50, 50]", '"constant"', '"cosine"', '"constant"'), ["/milestones/1"]),
        (sequence("[100]", '"constant"', '"cosine"'), ["/milestones/0"]),
        (sequence("[99]", '"constant"', '"cosine"'), []),
        (sequence("[95]", '"constant"', '"wsd", "decay": 6'), ["/schedules/1/decay"]),
    ],
)
def test_nonsense_is_found(document: str, pointers: list[str]) -> None:
    assert [each.pointer for each in READ.validate_json(document).problems(RUN)] == pointers


@pytest.mark.parametrize("name", ["step", "exponential", "multistep"])
def test_what_no_float_can_hold_is_infinite(name: str) -> None:
    more = {
        "step": '"step_size": 1',
        "exponential": '"every": 1',
        "multistep": '"milestones": [1, 2, 3, 4, 5, 6, 7, 8, 9]',
    }[name]
    assert rate(f'{{"name": "{name}", "gamma": 1e36, {more}}}')(50) == math.inf


def torch_rates(
    build: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler], steps: int
) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = build(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("document", "build"),
    [
        ('{"name": "step", "step_size": "30st"}', lambda o: torch.optim.lr_scheduler.StepLR(o, 30)),
        (
            '{"name": "exponential", "gamma": 0.97, "every": "1st"}',
            lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.97),
        ),
        ('{"name": "cosine", "T_max": "100st"}', lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 100)),
        (
            '{"name": "linear", "start_factor": 0.25, "end_factor": 1.0, "total_iters": 40}',
            lambda o: torch.optim.lr_scheduler.LinearLR(o, 0.25, 1.0, 40),
        ),
        (
            '{"name": "multistep", "milestones": [30, 31, 60], "gamma": 0.3}',
            lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [30, 31, 60], 0.3),
        ),
        (
            '{"name": "polynomial", "total_iters": 40, "power": 2.0}',
            lambda o: torch.optim.lr_scheduler.PolynomialLR(o, 40, 2.0),
        ),
        (
            sequence("[20]", '"constant"', '"exponential", "gamma": 0.97, "every": 1'),
            lambda o: torch.optim.lr_scheduler.SequentialLR(
                o,
                [
                    torch.optim.lr_scheduler.ConstantLR(o, 1.0, 1000),
                    torch.optim.lr_scheduler.ExponentialLR(o, 0.97),
                ],
                [20],
            ),
        ),
    ],
)
def test_agrees_with_torch_where_torch_is_right(
    document: str, build: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]
) -> None:
    curve = rate(document)
    assert [curve(t) for t in range(100)] == pytest.approx(torch_rates(build, 100), rel=1e-9, abs=1e-12)


def test_cosine_stays_down_where_torch_rises_again() -> None:
    """Torch's recursive form gives 0.00955 at t = 12 for T_max = 10; ours stays at eta_min."""
    assert rate('{"name": "cosine", "T_max": "10st"}')(12) == 0.0


def test_every_rate_is_a_function_of_the_step_alone() -> None:
    curve = rate('{"name": "cosine", "warmup": "7st", "eta_min": 0.001}')
    forward = [curve(t) for t in range(100)]
    assert [curve(t) for t in reversed(range(100))] == forward[::-1]
    assert all(a >= b for a, b in itertools.pairwise(forward[7:]))
