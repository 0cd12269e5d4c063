"""Which distributions join, which are refused and why, and what is said of their release."""

import json
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from api.routes import health
from core.engine.environment import describe_device, environment_differences, package_versions
from core.recipe import plugins
from core.recipe.optimizers import Optimizer
from core.recipe.optimizers.base import OptimizerSpec
from core.recipe.plan import ExecutionPlan, resolve_plan
from core.recipe.plugin_files import digest_distribution
from core.recipe.plugins import find_problem, installed_plugins, plugin_identities, plugins_used, union_members
from core.recipe.schedules.base import ScheduleSpec
from local.doctor import plugins as doctor
from tests.support.jobs import small_spec
from tests.support.plugins import write_distribution
from tests.support.service import ROOT

SPEC = '''
from typing import ClassVar, Literal
from core.recipe.optimizers.base import OptimizerSpec
{imports}
class Own(OptimizerSpec):
    """Steps."""
    summary: ClassVar[str] = "An optimizer of a test."
    implementation: ClassVar[str] = "{module}.steps:Own"
    name: Literal["{name}"] = "{name}"
'''
SCHEDULE = '''
from typing import ClassVar, Literal
from core.recipe.schedules.base import ScheduleSpec
class Halved(ScheduleSpec):
    """Half of the rate."""
    summary: ClassVar[str] = "Half of the rate throughout."
    name: Literal["halved"] = "halved"
    def rate_after_warmup(self, lr, run, rest):
        return lambda u: lr / 2
'''
REPORT = """
import json, sys
from core.errors import InvalidSpec
from core.recipe.catalog import component_classes
from core.recipe.parse import parse_job
from core.recipe.plugins import installed_plugins, plugin_identities
from core.recipe.stored import read_job
found = installed_plugins()
job = {"model": {"name": "mlp"}, "data": {"name": "digits"}, "optimizer": {"name": "sgd"}, "epochs": 2}
spec = parse_job(json.dumps({**job, "optimizer": {"name": "good"}, "schedule": {
    "name": "sequence", "schedules": [{"name": "halved"}, {"name": "cosine"}], "milestones": ["1ep"]}}).encode())
assert read_job(spec.model_dump_json()) == spec
try:
    parse_job(json.dumps({**job, "optimizer": {"name": "goot"}}).encode())
except InvalidSpec as error:
    hint = error.errors[0].hint
print(json.dumps({
    "joined": [each.name for each in found.joined],
    "refused": {each.name: each.reason for each in found.refused},
    "optimizers": list(component_classes("optimizers")),
    "used": list(plugin_identities(spec)),
    "hint": hint,
    "heavy": sorted({"torch", "numpy"} & set(sys.modules)),
}))
"""


def spec_module(name: str, module: str, imports: str = "") -> dict[str, str]:
    return {f"{module}/__init__.py": "", f"{module}/specs.py": SPEC.format(name=name, module=module, imports=imports)}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process without torch finds where seven distributions are installed, of which two are well."""
    folder = tmp_path_factory.mktemp("installed")

    def add(name: str, module: str, spec_name: str, imports: str = "", **more: str) -> None:
        entry_points = {"basin.optimizers": f"{module}.specs:Own", **more}
        write_distribution(folder, name, spec_module(spec_name, module, imports), entry_points)

    add("basin-good", "good_plug", "good")
    add("basin-heavy", "heavy_plug", "heavy", "import numpy")
    add("basin-broken", "broken_plug", "broken", "import no_such_module_at_all")
    add("basin-double", "double_plug", "sgd")
    add("basin-half", "half_plug", "half", **{"basin.models": "half_plug.specs:Own"})
    add("basin-ends", "ends_plug", "ends", "import os; os._exit(3)")
    schedule = {"slow_plug/__init__.py": SCHEDULE}
    write_distribution(folder, "basin-slow", schedule, {"basin.schedules": "slow_plug:Halved"})
    done = subprocess.run(
        [sys.executable, "-c", REPORT],
        env={"PYTHONPATH": f"{ROOT}:{folder}", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout), "log": done.stderr}


def test_what_is_well_joins_and_the_rest_is_refused(report: dict[str, Any]) -> None:
    assert report["joined"] == ["basin-good", "basin-slow"]
    assert report["optimizers"] == [*(str(each.model_fields["name"].default) for each in OPTIMIZERS), "good"]
    assert report["used"] == ["basin-good", "basin-slow"]
    assert report["hint"] == 'did you mean "good"?'


OPTIMIZERS = union_members(Optimizer)


def test_readiness_and_doctor_say_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readiness needs no key, so the reason of a refusal, which may name files, is said by doctor alone."""
    joined = plugins.Plugin("basin-a", "1.2", "ab", (("basin.optimizers", OPTIMIZERS[0]),))
    refused = plugins.RefusedPlugin("basin-b", "0.1", "no module at /srv/b", ("basin.losses:b",))
    found = plugins.InstalledPlugins((joined,), (refused,))
    monkeypatch.setattr(health, "installed_plugins", lambda: found)
    monkeypatch.setattr(doctor, "installed_plugins", lambda: found)
    assert health.describe_plugins() == {
        "joined": [{"name": "basin-a", "version": "1.2"}],
        "refused": [{"name": "basin-b", "version": "0.1", "entry_points": ["basin.losses:b"]}],
    }
    assert [(each.verdict, each.found) for each in doctor.plugin_checks()] == [
        ("ok", "basin-a 1.2: sgd (optimizers)"),
        ("warning", "basin-b 0.1 (basin.losses:b) is refused: no module at /srv/b"),
    ]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("basin-heavy", "heavy_plug.specs imports numpy; a spec names its builder by an import string instead"),
        ("basin-broken", "it cannot be imported: ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        ("basin-double", "double_plug.specs:Own (basin.optimizers): there is a 'sgd' already"),
        ("basin-half", "half_plug.specs:Own (basin.models): it is no subclass of ModelSpec"),
        ("basin-ends", "a process that imports it ends with status 3"),
    ],
)
def test_a_refusal_says_why_and_is_logged(report: dict[str, Any], name: str, reason: str) -> None:
    assert report["refused"][name] == reason
    assert f"the plug-in {name} 1.0 is refused" in report["log"]
    assert report["heavy"] == []  # the probe is another process


def test_without_plugins_nothing_is_looked_up_and_nothing_changes() -> None:
    assert installed_plugins() == plugins.InstalledPlugins()
    spec = small_spec()
    assert (plugins_used(spec), plugin_identities(spec), resolve_plan(spec, "cpu").plugins) == ((), {}, None)
    code = "import api.app; from core.recipe.plugins import installed_plugins as f; print(f.cache_info().misses)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "0\n"


class Listening(ScheduleSpec):
    """Listens."""

    summary = "Listens."  # type: ignore[misc]
    name: Any = "listening"

    def rate_after_warmup(self, lr: float, run: Any, rest: int) -> Callable[[int], float]:
        return lambda _: lr

    def monitored_series(self) -> str | None:
        return "val.loss"


def test_a_class_is_refused_for_its_first_problem() -> None:
    assert find_problem(dict, OptimizerSpec) == "it is no subclass of OptimizerSpec"
    assert find_problem(ScheduleSpec, ScheduleSpec) == "it lacks rate_after_warmup"
    assert find_problem(Listening, ScheduleSpec) == 'its `name` is not declared as `name: Literal["…"] = "…"`'
    assert find_problem(OPTIMIZERS[0], OptimizerSpec) is None
    assert find_problem(OPTIMIZERS[0], OptimizerSpec, {"sgd"}) == "there is a 'sgd' already"


def test_a_package_with_another_name_than_its_distribution_has_a_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, every job with such an optimizer died as it began: no distribution is called like the package."""
    write_distribution(tmp_path, "basin-other", {"plug_with_its_own_name/__init__.py": ""}, {}, "2.5")
    monkeypatch.syspath_prepend(tmp_path)
    assert package_versions("plug_with_its_own_name.steps:Own") == {"basin-other": "2.5"}
    assert package_versions("torch.optim:SGD") == {"torch": metadata.version("torch")}
    assert package_versions("of_no_distribution:Own") == {}


def test_a_digest_is_that_of_the_code_alone(tmp_path: Path) -> None:
    """Not of the folder, nor of how it was installed; and it changes with a file, or with the name of one."""

    def digest(folder: str, files: dict[str, str], version: str = "1.0") -> str:
        write_distribution(tmp_path / folder, "basin-a", files, {}, version)
        (found,) = metadata.distributions(path=[str(tmp_path / folder)])
        return digest_distribution(found, ["plug"])

    files = {"plug/__init__.py": "", "plug/steps.py": "a = 1\n"}
    first = digest("a", files)
    assert digest("b", files, "1.1") == first
    assert digest("c", {**files, "plug/steps.py": "a = 2\n"}) != first
    assert digest("d", {"plug/__init__.py": "", "plug/moved.py": "a = 1\n"}) != first


def test_the_digest_of_an_editable_installation_is_that_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its RECORD stays the same while its code is edited."""
    source = tmp_path / "source"
    (source / "edited_plug").mkdir(parents=True)
    (source / "edited_plug" / "__init__.py").write_text("a = 1\n")
    write_distribution(tmp_path / "site", "basin-edited", {"basin_edited.pth": str(source)}, {})
    folder = tmp_path / "site" / "basin_edited-1.0.dist-info"
    (folder / "direct_url.json").write_text(json.dumps({"url": "file:///x", "dir_info": {"editable": True}}))
    monkeypatch.syspath_prepend(source)
    (found,) = metadata.distributions(path=[str(tmp_path / "site")])
    before = digest_distribution(found, ["edited_plug.specs"])
    (source / "edited_plug" / "__init__.py").write_text("a = 2\n")
    assert digest_distribution(found, ["edited_plug.specs"]) != before


def test_another_release_of_a_plugin_is_approximate_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    plan = ExecutionPlan.model_validate({**resolve_plan(small_spec(), "cpu").model_dump(), "plugins": {"basin-a": "x"}})

    def environment(version: str, sha256: str) -> dict[str, Any]:
        found = plugins.InstalledPlugins((plugins.Plugin("basin-a", version, sha256, ()),))
        monkeypatch.setattr("core.engine.environment.installed_plugins", lambda: found)
        return describe_device(torch.device("cpu"), plan)

    before = environment("1.0", "ab")
    assert environment_differences(before, environment("1.0", "ab")) == []
    assert environment_differences(before, environment("1.0", "cd")) == [
        "basin-a: 1.0 sha256:ab before, 1.0 sha256:cd now"
    ]
    assert environment_differences(before, environment("1.1", "ab")) == [
        "basin-a: 1.0 sha256:ab before, 1.1 sha256:ab now"
    ]
    without = describe_device(torch.device("cpu"), resolve_plan(small_spec(), "cpu"))
    assert "basin-a" not in without["versions"]
