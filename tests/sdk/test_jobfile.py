"""Job files: what people write is what is sent."""

import json
from pathlib import Path
from typing import Any

import pytest

from basin import job_file
from basin.errors import BadFile
from core.recipe.spec import JobSpec
from tests.architecture.tree import ROOT
from tests.support.specs import warnings_of


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-4", 0.0005),
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("-2", -2),
        ("007", 7),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("off", "off"),
        ("1:30", "1:30"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("2026-11-23", "2026-11-23"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("NaN", "NaN"),
        ("10ep", "10ep"),
        ("'5e-4'", "5e-4"),
        ("[64, 1e2]", [64, 100.0]),
        ("{a: 1}", {"a": 1}),
    ],
)
def test_plain_values_mean_what_they_look_like(text: str, value: Any) -> None:
    """PyYAML alone would send the string '5e-4' as a weight decay, and false for a job called 'no'."""
    read = job_file.parse_job(f"key: {text}", "job.yaml")["key"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("- model", "is a list"),
        ("just words", "is text"),
        ("a: [", "job.yaml:1:5"),
        ("a: 1\n b: 2", "job.yaml:2:3"),
        ("a: 1\na: 2", "job.yaml:2:1: the key 'a' occurs twice"),
        ("a: 1e400", "1e400 is too large"),
        ("? [1]\n: 2", "a key is a single word"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("a: !!binary aGk=", "not JSON serializable"),
        ("a: &x [*x]", "Circular"),
        ("a: 1\n---\nb: 2", "another document"),
        ('a: "\x00"', "#x0000"),
        ("a: " + "9" * 5000, "4300 digits"),
        ("a: " + "[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_job_is_refused_in_words(text: str, message: str) -> None:
    with pytest.raises(BadFile, match=message.replace("[", r"\[")):
        job_file.parse_job(text, "job.yaml")


def test_json_is_read_by_the_same_reader() -> None:
    data = {"optimizer": {"lr": 1e-3, "nesterov": True}, "swa": None, "name": 'ü\n"quoted"', "batch_size": 32}
    assert job_file.parse_job(json.dumps(data), "job.json") == data


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadFile, match="No such file"):
        job_file.read_job(str(tmp_path / "absent.yaml"))
    with pytest.raises(BadFile, match="not a text file"):
        job_file.read_job(str(tmp_path / "weights"))


def test_changes_are_set_in_a_copy() -> None:
    spec = {"optimizer": {"name": "sgd", "lr": 0.1}, "swa": True}
    changed = job_file.with_changes(spec, ["optimizer.lr=1e-3", "model.hidden=[64, 64]", "swa=false", "name=a=b"])
    assert changed == {
        "optimizer": {"name": "sgd", "lr": 0.001},
        "model": {"hidden": [64, 64]},
        "swa": False,
        "name": "a=b",
    }
    assert spec == {"optimizer": {"name": "sgd", "lr": 0.1}, "swa": True}


@pytest.mark.parametrize("change", ["lr", "=1", "a..b=1", "swa.start=3", "a=["])
def test_changes_that_make_no_sense_are_refused(change: str) -> None:
    with pytest.raises(BadFile, match="--set"):
        job_file.with_changes({"swa": True}, [change])


def test_the_demo_job_is_the_one_among_the_examples_and_is_a_job() -> None:
    """The package carries the demo's job; the file that the README names must be that very job."""
    example = ROOT / "examples" / "digits-cosine-swa.yaml"
    packaged = ROOT / "sdk" / "basin" / "digits-cosine-swa.yaml"
    assert example.resolve() == packaged
    spec = JobSpec.model_validate_json(json.dumps(job_file.read_job(str(example)))).resolved()
    assert spec.data.split_seed == 0
    assert spec.swa is not None
    assert warnings_of(spec) == ()
