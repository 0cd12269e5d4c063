"""Whether two checkouts compute the same bits, and whether the new one resumes a job that the old one has paused.

python -m bench.compare_checkouts OLD NEW [--only NAME …] [--old-python PYTHON] [--new-python PYTHON]

OLD and NEW are trees, each with its own .venv unless a Python is named. Each serves the same jobs with `basin up` in a
home of its own: the recipes of the resume tests, the demo's job, the gallery's jobs on functions, a long job and two
analyses. Compared are the digest chain and the files of the last checkpoint, every other checkpoint, every point of
every series, results, and the arrays of analyses. Then NEW resumes, in the home of OLD, the long job that OLD paused.

Exit code 1 where anything differs. It takes two minutes of two cores.
"""

import argparse
import csv
import hashlib
import io
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np

from basin import job_file
from tests.support.checkout import Checkout, Json, ReleaseApi, running_release
from tests.support.release_writer import LONG, STOP_AT

ROOT: Final = Path(__file__).resolve().parents[1]
RECIPES: Final = Path(__file__).with_name("recipes.json")
SLOTS: Final = ("--slots", "2")
UNCOMPARED: Final = "throughput"  # a series of times
IDS: Final = re.compile(r"\b(job|ckpt|an)_[0-9a-z]{26}\b")
LONG_JOB: Final = "long"
ANALYSES: Final[dict[str, Json]] = {
    "landscape": {"kind": "landscape", "job": "mlp-momentum"},
    "sharpness": {"kind": "sharpness", "job": "cnn-adam"},
}
"""By name; `job` is the name of the job that the analysis reads."""

Digests = dict[str, str]
"""What is compared of a job -> its digest, or its text where that is short."""
Found = dict[str, Digests]
"""By the name of the job or the analysis."""


def job_bodies() -> dict[str, Json]:
    """The body of every job, by name."""
    bodies: dict[str, Json] = json.loads(RECIPES.read_text(encoding="utf-8"))
    bodies["demo"] = _read_job_file(ROOT / "sdk" / "basin" / "digits-cosine-swa.yaml")
    bodies[LONG_JOB] = LONG
    for path in sorted((ROOT / "gallery" / "jobs").glob("*/*.yaml")):
        body = _read_job_file(path)
        if body["data"]["name"] == "function":
            bodies[f"{path.parent.name}/{path.stem}"] = body
    return bodies


def _read_job_file(path: Path) -> Json:
    return job_file.parse_job(path.read_text(encoding="utf-8"), path.name)


def pause_long_job(api: ReleaseApi) -> str:
    """The id of a job that is paused in the middle of its training."""
    job_id = api.submit(LONG)
    api.wait_for_step(job_id, STOP_AT)
    api.post(f"/v1/jobs/{job_id}/pause")
    stopped = api.wait_for_status(job_id, "paused")["progress"]
    if stopped["step"] >= stopped["steps"]:
        raise RuntimeError("the long job was over before it could be paused")
    return job_id


def collect_digests(api: ReleaseApi, home: Path, bodies: dict[str, Json]) -> Found:
    """Train every job, run the analyses of these jobs, and compute the digests of both."""
    jobs = {name: api.submit(body) for name, body in bodies.items()}
    found = {name: digest_job(api, home, job_id) for name, job_id in jobs.items()}
    for name, body in ANALYSES.items():
        if body["job"] in jobs:
            found[name] = digest_analysis(api, api.submit({**body, "job": jobs[body["job"]]}, "analyses"))
    return found


def digest_job(api: ReleaseApi, home: Path, job_id: str) -> Digests:
    """Everything of an ended job that must not change."""
    job = api.wait_for_end(job_id)
    end = {"status": job["status"], "stop_reason": job["stop_reason"], "step": job["progress"]["step"]}
    content = api.response("GET", f"/v1/jobs/{job_id}/metrics?format=csv&max_points=100000").text
    return {
        "end": json.dumps(end),
        "results": digest_results(job["results"]),
        "metrics": digest_text(drop_times(content)),
        **checkpoint_digests(api, job_id),
        **last_manifest(home / "store" / "jobs" / job_id),
    }


def checkpoint_digests(api: ReleaseApi, job_id: str) -> Digests:
    """SHA-256 of the weights of every checkpoint that retention keeps; older ones may or may not be deleted yet."""
    rows = api.get(f"/v1/jobs/{job_id}/checkpoints?limit=100")["data"]
    last = max((row["step"] for row in rows), default=0)
    rows = [row for row in rows if row["kind"] != "last" or row["step"] == last]
    return {f"{row['kind']} {row['step']}": str(row["sha256"]) for row in rows}


def last_manifest(folder: Path) -> Digests:
    """Of the last resumable checkpoint: the digest chain, which covers the earlier ones, and its files."""
    manifests = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*/manifest.json")]
    lasts = [each for each in manifests if each["kind"] == "last"]
    if not lasts:
        return {}
    last = max(lasts, key=lambda each: int(each["step"]))
    return {"chain": last["digest"], **{role: last["files"][role]["sha256"] for role in ("weights", "state")}}


def digest_analysis(api: ReleaseApi, analysis_id: str) -> Digests:
    """One digest for each array: the packing of the file may change."""
    analysis = api.wait_for_end(analysis_id, "analyses")
    content = api.response("GET", f"/v1/analyses/{analysis_id}/content").content
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        digests = {f"array {name}": digest_array(arrays[name]) for name in arrays.files}
    return {"end": analysis["status"], "results": digest_results(analysis["results"]), **digests}


def digest_array(array: np.ndarray[Any, Any]) -> str:
    kind = f"{array.dtype.str} {array.shape} "
    return hashlib.sha256(kind.encode() + np.ascontiguousarray(array).tobytes()).hexdigest()


def digest_results(results: Json | None) -> str:
    """Results without the ids of jobs and checkpoints, which differ in every run."""
    return digest_text(IDS.sub("", json.dumps(results, sort_keys=True)))


def digest_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def drop_times(content: str) -> str:
    """The CSV of all series without the column of times, and without the series of times."""
    rows = csv.DictReader(io.StringIO(content))
    return "\n".join(f"{row['step']},{row['series']},{row['value']}" for row in rows if row["series"] != UNCOMPARED)


def resume_in_old_home(api: ReleaseApi, home: Path, paused: str) -> tuple[Json, Digests]:
    """The fidelity of the resume, and the digests of the job's end."""
    api.post(f"/v1/jobs/{paused}/resume")
    digests = digest_job(api, home, paused)
    return dict(api.get(f"/v1/jobs/{paused}")["resume"] or {}), digests


def differences(old: Digests, new: Digests) -> Iterator[str]:
    """One line for each difference."""
    for what in sorted(old.keys() | new.keys()):
        if old.get(what) != new.get(what):
            yield f"{what}: {old.get(what, 'missing')} in OLD, {new.get(what, 'missing')} in NEW"


def report(name: str, different: list[str]) -> bool:
    """Print the comparison of a job; returns whether both are equal."""
    print(f"{'equal    ' if not different else 'DIFFERENT'} {name}", flush=True)
    for line in different:
        print(f"    {line}")
    return not different


def serve_jobs(checkout: Checkout, home: Path, bodies: dict[str, Json]) -> tuple[Found, str | None]:
    """The digests of a checkout, and the id of the long job that it has paused, if that one is among the jobs."""
    with running_release(checkout, home, *SLOTS) as api:
        paused = pause_long_job(api) if LONG_JOB in bodies else None
        return collect_digests(api, home, bodies), paused


def compare(old: Checkout, new: Checkout, bodies: dict[str, Json], folder: Path) -> bool:
    """Run both checkouts at the same time, then the resume; returns whether everything is equal."""
    with ThreadPoolExecutor() as pool:
        sides = [pool.submit(serve_jobs, side, folder / name, bodies) for side, name in ((old, "old"), (new, "new"))]
    (before, paused), (after, _) = (side.result() for side in sides)
    same = [report(name, list(differences(before[name], after[name]))) for name in before]
    if paused:
        with running_release(new, folder / "old") as api:
            resume, ended = resume_in_old_home(api, folder / "old", paused)
        reasons = [] if resume.get("fidelity") == "exact" else [f"the resume was {resume or 'a start from nothing'}"]
        reasons += differences(before[LONG_JOB], ended)
        same.append(report("the long job, paused by OLD and resumed by NEW", reasons))
    print(f"{sum(same)} of {len(same)} are equal")
    return all(same)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--old-python", type=Path)
    parser.add_argument("--new-python", type=Path)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of these jobs alone")
    options = parser.parse_args()
    bodies = job_bodies()
    if unknown := set(options.only or ()) - bodies.keys():
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(bodies)}")
    chosen = {name: body for name, body in bodies.items() if not options.only or name in options.only}
    old = Checkout.at(options.old, options.old_python)
    new = Checkout.at(options.new, options.new_python)
    with tempfile.TemporaryDirectory(prefix="basin-compare-") as folder:
        sys.exit(0 if compare(old, new, chosen, Path(folder)) else 1)


if __name__ == "__main__":
    main()
