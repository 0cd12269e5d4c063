"""Ids sort by time, look alike, and are never the same twice."""

import time
import uuid

import pytest

from core.ids import encode_base32, is_id, make_uuid7, new_id


def test_the_example_of_rfc_9562() -> None:
    """Appendix A.6: 2022-02-22 19:22:22 UTC is 0x017F22E279B0 ms; version 7, variant 10 stand where they must."""
    made = uuid.UUID(int=make_uuid7(0x017F22E279B0 * 1_000_000, 0x18C4DC0C0C07398F))
    assert str(made)[:13] == "017f22e2-79b0"
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert str(made)[19:] == "98c4-dc0c0c07398f"


def test_the_fraction_of_a_millisecond_counts() -> None:
    assert make_uuid7(1_000_500_000, 0) >> 64 & 0xFFF == 2048
    assert make_uuid7(1_000_499_999, 2**62 - 1) < make_uuid7(1_000_500_000, 0)


def test_base32_by_hand() -> None:
    assert encode_base32(0) == "0" * 26
    assert encode_base32(31) == "0" * 25 + "z"
    assert encode_base32(32) == "0" * 24 + "10"
    assert encode_base32(2**128 - 1) == "7" + "z" * 25


def test_ids_sort_by_birth_and_differ() -> None:
    made = []
    for _ in range(50):
        made.append(new_id("job"))
        time.sleep(0.0001)
    assert made == sorted(made)
    assert len({new_id("job") for _ in range(10_000)}) == 10_000


@pytest.mark.parametrize("prefix", ["job", "ckpt", "an", "key"])
def test_an_id_has_its_shape(prefix: str) -> None:
    made = new_id(prefix)
    assert is_id(made, prefix)
    assert not is_id(made, "other")
    assert len(made) == len(prefix) + 27


@pytest.mark.parametrize(
    "text",
    [
        *("", "job_", "job_x", "job_" + "0" * 25, "job_" + "0" * 27, "job_" + "8" + "0" * 25, "job_" + "u" * 26),
        *("job_" + "0" * 25 + "\n", "JOB_" + "0" * 26, "job_" + "A" * 26, "job_../../etc/passwd00000000"),
        "job_0\0" + "0" * 24,
    ],
)
def test_nothing_else_is_an_id(text: str) -> None:
    assert not is_id(text, "job")
