"""How much an analysis computes at once, by the kind of device and its memory."""

import pytest
import torch

from core.engine.analysis import chunk_sizes
from core.engine.analysis.chunk_sizes import Sizes, sizes_for, sizes_on

GIB = 1 << 30


@pytest.mark.parametrize("memory", [0, 8 * GIB, 512 * GIB])
def test_a_cpu_computes_as_it_always_did(memory: int) -> None:
    """The bits of every analysis depend on these, whatever machine it is."""
    assert sizes_for("cpu", memory) == Sizes(numbers=2**21, columns=64, room=2**30, gradients=2**24)
    assert sizes_on(torch.device("cpu")) == sizes_for("cpu", memory)


@pytest.mark.parametrize("memory", [4 * GIB, 16 * GIB, 80 * GIB, 141 * GIB])
def test_a_gpu_computes_more_and_it_fits(memory: int) -> None:
    found, cpu = sizes_for("cuda", memory), sizes_for("cpu", 0)
    assert found.numbers > cpu.numbers
    assert found.columns > cpu.columns
    assert found.gradients > cpu.gradients
    assert found.room >= cpu.room
    assert 4 * found.numbers <= memory / 64
    assert found.room <= memory / 4
    assert 12 * found.gradients <= memory / 10


def test_it_is_what_the_process_may_take_not_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the next attempt would compute other bits beside another neighbour."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (GIB, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda _: 0.5)
    assert chunk_sizes.sizes_on(torch.device("cuda", 0)) == sizes_for("cuda", 40 * GIB)
