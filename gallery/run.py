"""Trains every job of the gallery through a service of its own, judges the claims and writes RESULTS.md.

    python -m gallery.run [SLUG …]

Exit code 1 when a robust claim does not hold.
"""

import os
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from basin import demo, jobfile
from basin.client import Client
from basin.shapes import Job
from gallery import averages, descent, playground
from gallery.claim import Claim, Curve, Runs, Seen, Trained

HERE = Path(__file__).parent
CLAIMS = (*playground.CLAIMS, *descent.CLAIMS, *averages.CLAIMS)
MOST_POINTS = 100_000
SLOTS = 2


class Service:
    """The gallery's view of a service: curves by job and series."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def curve(self, job: str, series: str) -> Curve:
        """Every point; a value that is no finite number is one that claims cannot use."""
        found = self.client.metrics(job, [series], max_points=MOST_POINTS)[series]
        return found.steps, [float("nan") if value is None else value for value in found.values]


@contextmanager
def service() -> Iterator[Client]:
    """A service in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile() as output:
        os.environ["BASIN_HOME"] = home
        options = ("--slots", str(SLOTS))
        with demo.started(demo.free_port(0), output, *options) as address, Client(address) as client:
            yield client


def submit(client: Client, claim: Claim) -> dict[str, list[tuple[int, str]]]:
    """Every variant with every seed; variant -> (seed, job)."""
    files = sorted((HERE / "jobs" / claim.slug).glob("*.yaml"))
    specs = {file.stem: jobfile.job(file.read_text(encoding="utf-8"), file.name) for file in files}
    return {
        variant: [
            (seed, client.submit({**spec, "seed": seed, "name": f"{claim.slug}/{variant}/{seed}"}).id)
            for seed in range(claim.seeds)
        ]
        for variant, spec in specs.items()
    }


def collect(client: Client, submitted: dict[str, list[tuple[int, str]]]) -> Runs:
    """Wait for every job; one that did not succeed ends it all, with its reason."""
    source = Service(client)
    return {
        variant: [trained(client.wait(job), seed, source) for seed, job in jobs] for variant, jobs in submitted.items()
    }


def trained(job: Job, seed: int, source: Service) -> Trained:
    if job.status != "succeeded":
        raise RuntimeError(f"{job.name or job.id} ended as {job.status}: {job.error}")
    return Trained(job.id, seed, job.stop_reason or "", job.results or {}, source)


def draw(client: Client, claim: Claim, runs: Runs, folder: Path) -> None:
    """The picture beside RESULTS.md; each curve is named by its variant."""
    folder.mkdir(exist_ok=True)
    jobs = [runs[variant][0].job for variant in claim.picture.variants]
    picture = client.plot(jobs, claim.picture.series or None, **claim.picture.look)
    (folder / f"{claim.slug}.svg").write_text(picture, encoding="utf-8")


def verdict(claim: Claim, seen: Seen) -> str:
    """One word for a robust claim; a fragile one may fail, and says so."""
    if claim.robust:
        return "holds" if seen.holds else "**fails**"
    return "holds here" if seen.holds else "not at this scale"


def entry(claim: Claim, seen: Seen, jobs: int) -> str:
    """The claim's part of RESULTS.md."""
    how = "asserted" if claim.robust else "shown, not asserted"
    size = f"{claim.seeds} seed{'s' * (claim.seeds > 1)}, {jobs} jobs"
    return f"""## {claim.title}

{textwrap.fill(claim.text, 125)}

| | |
|---|---|
| expected | {claim.expected} |
| seen | {seen.words} |
| other settings | {claim.also_tried or "none were tried"} |
| verdict | {verdict(claim, seen)} ({how}; {size}) |
| job files | [jobs/{claim.slug}](jobs/{claim.slug}) |

![{claim.title}](pictures/{claim.slug}.svg)
"""


def report(parts: list[str], jobs: int, seconds: float) -> str:
    """RESULTS.md."""
    head = f"""# The gallery

What is said about gradient descent, checked by jobs that anybody can post. Each entry has its job files, what they
were expected to show and what they showed, over all the seeds that were tried. Some claims are asserted at the
settings of their job files: `make gallery` fails when one does not hold. The others are shown as they came out. Where
settings were chosen after other ones had been tried, the entry says what those showed.

This page was written by `make gallery`: {jobs} jobs in {seconds / 60:.0f} minutes on {os.cpu_count()} cores.
"""
    return "\n".join([head, *parts])


def main(slugs: list[str]) -> int:
    """Everything is submitted first, so that no slot waits for a judge."""
    chosen = [claim for claim in CLAIMS if not slugs or claim.slug in slugs]
    began, parts, total, broken = time.monotonic(), [], 0, 0
    with service() as client:
        waiting = [(claim, submit(client, claim)) for claim in chosen]
        for claim, submitted in waiting:
            runs = collect(client, submitted)
            seen = claim.judge(runs)
            jobs = sum(len(each) for each in runs.values())
            draw(client, claim, runs, HERE / "pictures")
            parts.append(entry(claim, seen, jobs))
            total, broken = total + jobs, broken + (claim.robust and not seen.holds)
            print(f"{claim.slug:24} {verdict(claim, seen):18} {seen.words}", flush=True)  # noqa: T201 - a command line
    if not slugs:
        text = report(parts, total, time.monotonic() - began)
        (HERE / "RESULTS.md").write_text(text, encoding="utf-8")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
