"""The host runs ahead of its device by half a second of work, whatever a step costs: a queue played by numbers."""

import random

import pytest
import torch

from core.engine import pacing
from core.engine.liveness import Piece, ReportAlive, report_nothing
from core.engine.pacing import Pacer, build_pacer, with_pacing


class Device:
    """Works off a queue of steps; time passes only while the host launches or waits."""

    def __init__(self, launch: float) -> None:
        self.now = 0.0
        self.done_at = 0.0  # when everything that is queued will be done
        self.launch = launch
        self.most_ahead = 0.0
        self.waited = 0.0

    def step(self, seconds: float) -> None:
        self.now += self.launch
        self.done_at = max(self.done_at, self.now) + seconds

    def record(self) -> "Passed":
        return Passed(self, self.done_at)


class Passed:
    """An event of that device."""

    def __init__(self, device: Device, at: float) -> None:
        self.device, self.at = device, at

    def synchronize(self) -> None:
        self.device.waited += max(0.0, self.at - self.device.now)
        self.device.now = max(self.device.now, self.at)


def driven(launch: float, lengths: list[float], settle: int = 50) -> Device:
    device = Device(launch)
    pacer = Pacer(device.record, clock=lambda: device.now)
    for number, seconds in enumerate(lengths):
        device.step(seconds)
        pacer.step()
        if number >= settle:
            device.most_ahead = max(device.most_ahead, device.done_at - device.now)
    return device


@pytest.mark.parametrize("seconds", [1e-4, 1e-3, 0.02, 0.1, 0.2])
def test_at_most_half_a_second_is_queued(seconds: float) -> None:
    device = driven(1e-5, [seconds] * int(20 / seconds))
    assert 0 < device.most_ahead <= 0.5


def test_a_step_longer_than_that_is_one_ahead() -> None:
    assert driven(1e-5, [3.0] * 60).most_ahead <= 6.0


def test_steps_of_many_lengths() -> None:
    lengths = [random.Random(0).choice([1e-3, 2e-3, 5e-3]) for _ in range(20_000)]
    assert driven(1e-5, lengths).most_ahead <= 0.5


def test_a_device_that_is_faster_than_its_host_is_not_waited_for() -> None:
    device = driven(1e-3, [1e-4] * 20_000)
    assert device.waited < 0.01 * device.now


def test_without_a_limit_the_queue_grows() -> None:
    """The negative control: what the pacer is for."""
    device = Device(1e-5)
    for _ in range(1000):
        device.step(0.1)
    assert device.done_at - device.now > 90


def test_a_cpu_needs_none() -> None:
    assert build_pacer(torch.device("cpu")) is None


def reporting(monkeypatch: pytest.MonkeyPatch, device: Device) -> tuple[ReportAlive, list[Piece]]:
    """Paced reports, and what comes of them."""
    monkeypatch.setattr(pacing, "build_pacer", lambda _: Pacer(device.record, clock=lambda: device.now))
    heard: list[Piece] = []
    return with_pacing(heard.append, torch.device("cuda")), heard


def test_pieces_of_another_length_begin_when_all_before_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was learnt of thousands of quick ones would let minutes of slow ones be queued."""
    device = Device(1e-5)
    report, heard = reporting(monkeypatch, device)
    plan: list[tuple[Piece, float]] = [("step", 1e-4)] * 20_000 + [("evaluate", 0.1)] * 50 + [("step", 1e-4)] * 100
    last: Piece | None = None
    for piece, seconds in plan:
        report(piece)
        if piece != last:
            assert device.done_at <= device.now
        last = piece
        device.step(seconds)
        device.most_ahead = max(device.most_ahead, device.done_at - device.now)
    assert heard == [piece for piece, _ in plan]
    assert device.most_ahead <= 0.5


def test_on_a_cpu_reports_go_straight_through() -> None:
    assert with_pacing(report_nothing, torch.device("cpu")) is report_nothing
