"""Two workers share one surface: they compute its parts at a time, and it is that of one worker to the last bit."""

import re
from pathlib import Path

import pytest

from tests.faults.test_analyses import SMALL, Analyses
from tests.support.service import Job, Service, until

MANY = 3


def workers_of(analysis: Job) -> set[str]:
    """Who has had it."""
    return set(re.findall(r"attempt \d+ on ([^\s,']+)", str(analysis["timeline"])))


@pytest.mark.slow
def test_two_workers_share_one_surface(sqlite_service: Service) -> None:
    """One of them even leaves in the middle."""
    service, analyses = sqlite_service, Analyses(sqlite_service)
    job_id = service.submit(SMALL)
    assert service.ended(job_id)["status"] == "succeeded"
    surface: Job = {"kind": "landscape", "job": job_id, "steps": 25}
    whole = analyses.ask(**surface)
    assert analyses.ended(whole)["status"] == "succeeded"
    service.heal(2)
    parts = [analyses.ask(**surface, part={"number": number, "of": MANY}) for number in range(1, MANY + 1)]

    def seen() -> set[str]:
        return set().union(*(workers_of(analyses.get(each)) for each in parts))

    until("both have begun with one", lambda: len(seen()) == 2)
    assert service.workers[0].stop() == 0
    ended = [analyses.ended(each) for each in parts]
    assert [(each["status"], each["results"]["part"]["number"]) for each in ended] == [
        ("succeeded", number) for number in range(1, MANY + 1)
    ]
    assert sum(each["results"]["computed"] for each in ended) == 25 * 25
    joined = analyses.ask(kind="assembly", analyses=parts)
    found, expected = analyses.ended(joined), analyses.get(whole)
    assert (found["status"], found["error"]) == ("succeeded", None)
    assert found["results"] == expected["results"]
    assert [each["job"] for each in found["subjects"]] == parts
    arrays, same = analyses.arrays(joined), analyses.arrays(whole)
    assert arrays.keys() == same.keys()
    assert all(arrays[name].tobytes() == same[name].tobytes() for name in same)
    assert found["pictures"].keys() == expected["pictures"].keys() != set()
    for name, url in found["pictures"].items():
        assert service.http.get(url).content == service.http.get(expected["pictures"][name]).content
    damaged(analyses, parts)
    assert service.http.delete(f"/v1/analyses/{parts[0]}").status_code == 204


def damaged(analyses: Analyses, parts: list[str]) -> None:
    """A part whose file was changed is never read: the assembly fails with a sentence that names it."""
    (file,) = (each for each in Path(analyses.service.home).rglob("result.npz") if parts[1] in str(each))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.chmod(0o600)
    file.write_bytes(content)
    found = analyses.ended(analyses.ask(kind="assembly", analyses=parts))
    assert (found["status"], found["results"]) == ("failed", None)
    assert f"the result of {parts[1]}, which the analysis reads, cannot be read" in found["error"]["message"]
    assert "does not match its recorded digest" in found["error"]["message"]
    assert parts[1] in found["error"]["remedy"]
