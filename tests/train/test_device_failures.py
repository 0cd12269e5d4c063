"""A device that breaks is not the job's fault, and memory that runs out is told apart by where and by whom."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from core.engine import build, cuda_errors, determinism, loop
from core.engine.checkpoints import files
from core.engine.cuda_errors import MemoryFacts
from core.engine.events import Ended
from core.engine.failure import EngineError, device_not_opened, known_failure
from core.engine.networks import network
from core.engine.optimizers import flat
from core.engine.weights.averaging import RunningMean
from core.engine.weights.ensemble import Ensemble
from core.recipe.plan import ExecutionPlan, resolve_plan
from core.recipe.spec import JobSpec
from tests.train import looks
from tests.train.breaking import STICKY, Breaking, counted, failing, on_the_host
from tests.train.looks import Look
from tests.train.runs import Train, digests, job
from worker import wire
from worker.runner import event_frame

GIB = 1 << 30
NO_ROOM = "CUDA out of memory. Tried to allocate 2.00 GiB."
TAILED = {"name": "mlp", "hidden": [16, 12], "batch_norm": True, "dropout": 0.2}  # goes through autograd
KEEPING = {
    "ensemble": {"method": "checkpoints", "every": "3st", "members": 2},
    "swa": {"start": "4st", "every": "2st"},
    "early_stopping": {"monitor": "val.loss", "patience": 100},
    "sam": {"rho": 0.05},
    "epochs": 1,
    "evaluate": {"every": "2st"},
}


@pytest.fixture(autouse=True)
def read_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "load_file", on_the_host(files.load_file))


def error_of(ending: Ended) -> dict[str, Any]:
    """The document of a run that failed, after its way through the pipe."""
    assert ending.outcome == "failed"
    frame = wire.unpack_payload(wire.pack_frame(event_frame(ending)[0], "job_test", event_frame(ending)[1])[4:])
    found: dict[str, Any] = frame["error"]
    return found


@pytest.mark.parametrize("share", [0.0, 0.2, 0.35, 0.5, 0.62, 0.75, 0.87, 0.95, 1.0])
@pytest.mark.parametrize("fields", [{"model": TAILED, **KEEPING}, {"epochs": 1, **KEEPING, "sam": None}])
def test_wherever_a_device_breaks_the_ending_says_so(run: Train, fields: dict[str, Any], share: float) -> None:
    """Nothing that a run does to end, nor what it puts back, hides the failure; and nothing is written after it."""
    spec = job(**fields)
    with counted() as found:
        run(spec)
    with Breaking(int(share * (found[0] - 1))) as device:
        ending, watcher = run(spec)
    error = error_of(ending)
    assert (error["code"], error["reason"]) == ("device_failed", "failed")
    assert error["message"] == STICKY.splitlines()[0]
    assert "not the job" in error["remedy"]
    assert device.refused <= 4  # the one that failed, and what `finally` puts back
    for each in watcher.checkpoints().values():
        assert digests(each)


def test_nothing_asks_a_broken_device_for_the_best_weights(run: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run that fails otherwise leaves aside would have to come from the device."""
    spec = job(model=TAILED, **{**KEEPING, "sam": None})
    wrong = failing(flat.FlatStepper.step, torch.AcceleratorError(STICKY), at=5)
    monkeypatch.setattr(flat.FlatStepper, "step", wrong)
    ending, broken = run(spec)
    assert error_of(ending)["code"] == "device_failed"
    assert not broken.checkpoints("best")
    full = failing(wrong, torch.OutOfMemoryError(NO_ROOM), at=5)
    monkeypatch.setattr(flat.FlatStepper, "step", full)
    ending, exhausted = run(spec)
    assert error_of(ending)["code"] == "out_of_memory"
    assert exhausted.checkpoints("best")  # the negative control: these are written where the device still answers


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9, 1.0])
@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "landscape", "steps": 3, "bn": "reestimate"},
        {"kind": "connect", "epochs": 1, "points": 3},
        {"kind": "critical_point", "lanczos_steps": 10, "points": 3},
        {"kind": "gradient_noise", "draws": 10},
    ],
    ids=lambda fields: fields["kind"],
)
def test_so_does_an_analysis(run: Train, look: Look, fields: dict[str, Any], share: float) -> None:
    spec = job(model=TAILED, epochs=1)
    _, watcher = run(spec)
    pair = (spec, watcher.checkpoints()[8])
    pairs = [pair, pair] if fields["kind"] == "connect" else [pair]
    with counted() as found:
        look(pairs, **fields)
    with Breaking(int(share * (found[0] - 1))):
        ended = look(pairs, **fields).ended
    assert error_of(ended)["code"] == "device_failed"


def passing(monkeypatch: pytest.MonkeyPatch, error: BaseException, *, training: bool, at: int) -> None:
    """The pass number `at` of that kind fails."""
    made = network.direct_forward
    calls = iter(range(1, 10**9))

    def broken(module: torch.nn.Sequential) -> Callable[[torch.Tensor], torch.Tensor]:
        forward = made(module)

        def passed(inputs: torch.Tensor) -> torch.Tensor:
            if module.training is training and next(calls) == at:
                raise error
            return forward(inputs)

        return passed

    monkeypatch.setattr(network, "direct_forward", broken)


@pytest.mark.parametrize("training", [True, False], ids=["step", "evaluation"])
@pytest.mark.parametrize("message", [NO_ROOM, "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"])
def test_memory_that_examples_wanted(
    run: Train, monkeypatch: pytest.MonkeyPatch, message: str, *, training: bool
) -> None:
    passing(monkeypatch, torch.OutOfMemoryError(message), training=training, at=3)
    error = error_of(run(job(model=TAILED, evaluate={"every": "2st"}))[0])
    assert (error["code"], error["where"]) == ("out_of_memory", "forward")
    assert "batch" in error["remedy"]
    assert not error.keys() & {"memory", "foreign"}  # nobody knows, on a CPU


def test_the_closed_form_says_so_too(run: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "addmm", failing(torch.addmm, torch.OutOfMemoryError(NO_ROOM), at=4))
    assert error_of(run(job())[0])["where"] == "forward"


@pytest.mark.parametrize(
    ("home", "name"),
    [
        (build, "load_dataset"),
        (build, "build_stepper"),
        (flat.FlatStepper, "step"),
        (Ensemble, "collect"),
        (RunningMean, "collect"),
    ],
    ids=["data", "optimizer", "first step", "ensemble", "average"],
)
@pytest.mark.parametrize("error", [torch.OutOfMemoryError(NO_ROOM), MemoryError()], ids=["gpu", "cpu"])
def test_memory_that_fewer_examples_would_not_free(
    run: Train, monkeypatch: pytest.MonkeyPatch, home: Any, name: str, error: BaseException
) -> None:
    monkeypatch.setattr(home, name, failing(getattr(home, name), error))
    found = error_of(run(job(**KEEPING))[0])
    assert (found["code"], found["where"]) == ("out_of_memory", "build")
    assert found["message"] in {NO_ROOM, "memory ran out"}
    assert "smaller model" in found["remedy"]


def known(monkeypatch: pytest.MonkeyPatch, facts: MemoryFacts) -> None:
    """A device that says so of its memory."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (facts.free, facts.total))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: facts.reserved)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda _: facts.peak)


def test_the_memory_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, MemoryFacts(total=80 * GIB, free=GIB, reserved=20 * GIB, peak=21 * GIB))
    found = known_failure(torch.OutOfMemoryError(NO_ROOM), torch.device("cuda"))
    assert found
    assert found.as_document() == {
        "code": "out_of_memory",
        "message": NO_ROOM,
        "remedy": "Other processes hold 59.0 of 80.0 GiB of this device: end them, or run the job on another device.",
        "where": "build",
        "foreign": True,
        "memory": {
            "total": 80 * GIB,
            "free": GIB,
            "reserved": 20 * GIB,
            "peak": 21 * GIB,
            "requested": 2 * GIB,
            "foreign": 59 * GIB,
        },
    }


def test_the_jobs_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, MemoryFacts(total=80 * GIB, free=GIB, reserved=78 * GIB, peak=78 * GIB))
    found = known_failure(torch.OutOfMemoryError(NO_ROOM), torch.device("cuda"))
    assert found
    assert "foreign" not in found.as_document()
    assert found.remedy.endswith("Of the device's 80.0 GiB the job had 78.0.")


def test_a_library_that_cannot_begin_is_about_memory_only_where_that_is_scarce(monkeypatch: pytest.MonkeyPatch) -> None:
    error = RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`")
    known(monkeypatch, MemoryFacts(80 * GIB, 100 << 20, 79 * GIB, 79 * GIB))
    assert (one := known_failure(error, torch.device("cuda")))
    known(monkeypatch, MemoryFacts(80 * GIB, 40 * GIB, 39 * GIB, 39 * GIB))
    assert (other := known_failure(error, torch.device("cuda")))
    assert [one.code, other.code] == ["out_of_memory", "device_failed"]


def test_a_device_that_failed_is_asked_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object) -> None:
        raise AssertionError("this may never return")

    monkeypatch.setattr(cuda_errors, "memory_facts", asked)
    monkeypatch.setattr("core.engine.failure.memory_facts", asked)
    found = known_failure(torch.AcceleratorError(STICKY), torch.device("cuda"))
    assert found
    assert found.code == "device_failed"


@pytest.mark.parametrize(
    ("error", "reason", "repair"),
    [
        (AssertionError("Torch not compiled with CUDA enabled"), "torch_without_cuda", "Install a torch"),
        (
            RuntimeError("The NVIDIA driver on your system is too old (found version 11040)."),
            "driver_too_old",
            "Update",
        ),
        (RuntimeError("Found no NVIDIA driver on your system."), "no_driver", "Install the NVIDIA driver"),
        (RuntimeError("No CUDA GPUs are available"), "no_device", "nvidia-smi"),
        (torch.AcceleratorError("CUDA error: no kernel image is available"), "unsupported_device", "this kind of GPU"),
        (torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"), "failed", "another one"),
        (RuntimeError("something that nobody has thought of"), "failed", "another one"),
    ],
)
def test_a_device_that_cannot_be_opened(
    run: Train, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str, repair: str
) -> None:
    monkeypatch.setattr(torch.cuda, "init", failing(lambda: None, error))
    ending, watcher = run(job(), plan={"device": "cuda"})
    document = error_of(ending)
    assert (document["code"], document["reason"]) == ("device_failed", reason)
    assert document["message"] == str(error)
    assert repair in document["remedy"]
    assert watcher.events == []


def test_an_analysis_opens_it_too(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "init", failing(lambda: None, RuntimeError("No CUDA GPUs are available")))
    monkeypatch.setattr(looks, "resolve_plan", lambda *_: on_a_gpu(job()))
    found = look([(job(), None)], kind="lr_range")
    assert error_of(found.ended)["code"] == "device_failed"
    assert found.watcher.events == []


def on_a_gpu(spec: JobSpec) -> ExecutionPlan:
    return resolve_plan(spec, "gpu")


def test_a_device_that_is_full_before_anything_is_there(run: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """A context alone takes some hundred MiB: whoever holds them, it is not this job."""
    monkeypatch.setattr(torch.cuda, "init", failing(lambda: None, torch.AcceleratorError("CUDA error: out of memory")))
    document = error_of(run(job(), plan={"device": "cuda"})[0])
    assert (document["code"], document["where"], document["foreign"]) == ("out_of_memory", "build", True)
    assert "Other processes" in document["remedy"]


def test_a_device_that_computes_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
    monkeypatch.setattr(torch, "ones", lambda *size, **_: torch.full(size, 2.0))
    with pytest.raises(EngineError, match="product of ones on cuda:0 adds up to") as caught:
        determinism.open_device(on_a_gpu(job()))
    assert caught.value.code == "device_failed"


def test_a_mistake_of_the_engine_is_still_one(run: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check in a kernel that failed: the device is as good as before, the code is not."""
    monkeypatch.setattr(
        loop,
        "build_training_run",
        failing(loop.build_training_run, torch.AcceleratorError("CUDA error: device-side assert triggered")),
    )
    with pytest.raises(torch.AcceleratorError):
        run(job())


def test_what_the_previous_release_wrote_is_still_there() -> None:
    """Readers of a job's error find what they always found."""
    plain = EngineError("bad_data", "what", "how")
    assert plain.as_document() == {"code": "bad_data", "message": "what", "remedy": "how"}
    assert device_not_opened(RuntimeError("CUDA error: unknown error")).as_document().keys() >= {
        "code",
        "message",
        "remedy",
    }
