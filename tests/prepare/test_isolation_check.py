"""What `basin doctor` says about the isolation of parsers."""

import os
from pathlib import Path

import pytest

from core.settings import Settings
from local.doctor.checks import CheckStatus
from local.doctor.isolation import check_isolation, isolation_checks


def test_it_is_tried_for_real(tmp_path: Path) -> None:
    (found,) = isolation_checks(Settings(home=tmp_path), dict(os.environ))
    assert found.verdict is CheckStatus.OK, found
    assert "landlock-" in found.found
    assert found.found.endswith("seccomp, rlimits")


@pytest.mark.parametrize(("wanted", "verdict"), [("best", CheckStatus.WARNING), ("required", CheckStatus.FAIL)])
def test_what_lacks_is_a_failure_only_where_it_is_required(tmp_path: Path, wanted: str, verdict: CheckStatus) -> None:
    settings = Settings(home=tmp_path, prepare_confined=wanted)  # type: ignore[arg-type]  # one of the two words
    found = check_isolation(["seccomp", "rlimits"], settings)
    assert found.verdict is verdict
    assert "without landlock" in found.found
    assert found.do is not None
    assert found.do.startswith("needs Linux 5.13")
