"""Durations: what they mean in steps, how they are written, what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, ValidationError

from core.recipe.duration import Duration, RunLength

RUN = RunLength(steps_per_epoch=40, total_steps=1200)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("10ep", 400),
        ("0.5ep", 20),
        ("5000st", 5000),
        ("0st", 0),
        ("0.75run", 900),
        ("1run", 1200),
        ("0.0004run", 0),  # 0.48 of a step
        ("0.00042run", 1),  # 0.504 of a step
        ("0.0125ep", 1),  # exactly half a step goes up
        ("0.1run", 120),  # exact: no binary fraction of 0.1
    ],
)
def test_steps(text: str, steps: int) -> None:
    assert Duration.parse(text).steps(RUN) == steps


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "10 ep",
        "ep",
        "-1ep",
        "1e3st",
        "1.5st",
        "1.01run",
        "10epochs",
        "0x10st",
        "1ep\n",
        "٣ep",
        "9" * 13 + "st",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|whole|at most|longer"):
        Duration.parse(text)


class Holder(BaseModel):
    model_config = ConfigDict(strict=True)
    length: Duration


@pytest.mark.parametrize("document", ['{"length": true}', '{"length": 1.5}', '{"length": -1}', '{"length": null}'])
def test_refused_in_documents(document: str) -> None:
    with pytest.raises(ValidationError):
        Holder.model_validate_json(document)


def test_a_bare_integer_counts_optimizer_steps() -> None:
    assert Holder.model_validate_json('{"length": 7}').length.steps(RUN) == 7
    assert Holder.model_validate_json('{"length": 7}').model_dump_json() == '{"length":"7st"}'


@given(st.integers(0, 10**9), st.integers(0, 999_999), st.sampled_from(["ep", "st"]))
def test_text_round_trips(whole: int, millionths: int, unit: str) -> None:
    text = f"{whole}.{millionths:06d}{unit}" if unit == "ep" else f"{whole}{unit}"
    duration = Duration.parse(text)
    assert Duration.parse(str(duration)) == duration


def test_defaults_in_json_schema_are_written_as_users_write_them() -> None:
    class Every(BaseModel):
        every: Duration = Duration.parse("1ep")

    assert Every.model_json_schema()["properties"]["every"]["default"] == "1ep"
