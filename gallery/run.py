"""Trains every job of the gallery through a service of its own, evaluates the claims and writes RESULTS.md.

    python -m gallery.run [SLUG …]

Exit code 1 when a robust claim does not hold.
"""

import os
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from basin import demo, job_file
from basin.client import Client
from basin.shapes import Job
from core.plot.chart import Style
from core.plot.draw import draw_picture
from gallery import averages, batches, flatness, generalisation, playground, rates, surfaces
from gallery.claim import Claim, Curve, Found, Look, PathOf, PicturesOf, Runs, Seen, Table, Trained

HERE = Path(__file__).parent
CLAIMS = (
    *playground.CLAIMS,
    *batches.CLAIMS,
    *rates.CLAIMS,
    *generalisation.CLAIMS,
    *averages.CLAIMS,
    *flatness.CLAIMS,
    *surfaces.CLAIMS,
)
Submitted = dict[str, list[tuple[int, str]]]
"""Variant -> (seed, job) of each."""

MOST_POINTS = 100_000
FIRST = 100
"""The highest priority."""
SLOTS = 2


class Service:
    """The gallery's view of a service: curves by job and series."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def curve(self, job: str, series: str) -> Curve:
        """Every point; values that are not finite become NaN."""
        found = self.client.metrics(job, [series], max_points=MOST_POINTS)[series]
        return found.steps, [float("nan") if value is None else value for value in found.values]

    def kept(self, job: str, kind: str) -> Sequence[str]:
        found = [each for each in self.client.checkpoints(job) if each.kind == kind]
        return [each.id for each in sorted(found, key=lambda each: each.step)]

    def file(self, analysis: str, name: str) -> bytes:
        """One file of the archive of an analysis."""
        with tempfile.TemporaryDirectory() as folder:
            self.client.save(self.client.analysis(analysis), folder)
            return Path(folder, name).read_bytes()


@contextmanager
def service() -> Iterator[Client]:
    """A service in a temporary folder."""
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile() as output:
        os.environ["BASIN_HOME"] = home
        options = ("--slots", str(SLOTS))
        with demo.start_service(demo.free_port(0), output, *options) as address, Client(address) as client:
            yield client


def submit(client: Client, claim: Claim) -> Submitted:
    """Submit every variant with every seed. The name of a job is its variant, which pictures of paths show."""
    files = sorted((HERE / "jobs" / claim.folder).glob("*.yaml"))
    specs = {file.stem: job_file.parse_job(file.read_text(encoding="utf-8"), file.name) for file in files}
    return {
        variant: [(seed, client.submit({**spec, "seed": seed, "name": variant}).id) for seed in claim.seeds]
        for variant, spec in specs.items()
    }


def collect(client: Client, submitted: Submitted) -> Runs:
    """Wait for every job. Raises RuntimeError with the reason when one did not succeed."""
    source = Service(client)
    return {
        variant: [trained(client.wait(job), seed, source) for seed, job in jobs] for variant, jobs in submitted.items()
    }


def trained(job: Job, seed: int, source: Service) -> Trained:
    if job.status != "succeeded":
        raise RuntimeError(f"{job.name or job.id} with seed {seed} ended as {job.status}: {job.error}")
    steps, epochs = job.progress.steps or 1, job.progress.epochs or 1
    return Trained(job.id, seed, job.stop_reason or "", job.results or {}, source, steps / epochs)


def looked(client: Client, looks: Sequence[Look], runs: Runs) -> Runs:
    """The same runs with the results of each look. Analyses are served before the queued jobs of other entries."""
    source = Service(client)
    for look in looks:
        asked = {run.job: client.analyze({**request, "priority": FIRST}).id for run, request in look.ask(runs)}
        found = {job: finding(client.wait(analysis), source) for job, analysis in asked.items()}
        runs = {
            variant: [
                replace(run, found={**run.found, look.name: found[run.job]}) if run.job in found else run
                for run in jobs
            ]
            for variant, jobs in runs.items()
        }
    return runs


def finding(done: Job, source: Service) -> Found:
    if done.status != "succeeded":
        raise RuntimeError(f"{done.id} ended as {done.status}: {done.error}")
    return Found(done.id, done.results or {}, source)


def looks_at(folder: str) -> list[Look]:
    """The looks of all claims about the jobs of a folder."""
    return [look for claim in CLAIMS if claim.folder == folder for look in claim.looks]


def draw_pictures(client: Client, claim: Claim, runs: Runs) -> list[str]:
    """The pictures beside RESULTS.md, in the order of their names."""
    picture = claim.picture
    if isinstance(picture, PathOf):
        return [client.plot([runs[variant][0].job for variant in picture.variants], kind="path")]
    if isinstance(picture, PicturesOf):
        return [runs[variant][0].found[picture.look].picture(picture.picture) for variant in picture.variants]
    return [draw_picture(picture(runs), Style())]


def verdict(claim: Claim, seen: Seen) -> str:
    """The verdict in words; a claim that is not robust may be undecided."""
    if claim.robust:
        return "holds" if seen.holds else "**fails**"
    return "holds here" if seen.holds else "undecided at this scale"


def table(rows: Table) -> str:
    """The rows as a Markdown table; empty for no rows."""
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]) + "\n" if lines else ""


def size(claim: Claim, jobs: int, analyses: int) -> str:
    """How many seeds, jobs and analyses a verdict is based on."""
    seeds = claim.seeds
    told = "no randomness" if len(seeds) == 1 else f"{len(seeds)} seeds, {seeds[0]} to {seeds[-1]}"
    ran = f"the jobs of {claim.jobs_of}" if claim.jobs_of else f"{jobs} jobs"
    return f"{told}; {ran}, {analyses} analyses" if analyses else f"{told}; {ran}"


def counted(claim: Claim, runs: Runs) -> tuple[int, int]:
    """How many jobs and analyses were run for this claim and not for an earlier one."""
    names = {look.name for look in claim.looks}
    jobs = [run for each in runs.values() for run in each]
    return 0 if claim.jobs_of else len(jobs), sum(len(names & run.found.keys()) for run in jobs)


def entry(claim: Claim, seen: Seen, jobs: int, analyses: int = 0) -> str:
    """The claim's part of RESULTS.md."""
    how = "asserted" if claim.robust else "shown, not asserted"
    rows = [
        ("", ""),
        ("setting", claim.setting),
        ("expected", claim.expected),
        ("seen", seen.words),
        ("other settings", claim.also_tried),
        ("verdict", f"{verdict(claim, seen)} ({how}; {size(claim, jobs, analyses)})"),
        ("job files", f"[jobs/{claim.folder}](jobs/{claim.folder})"),
    ]
    drawn = claim.drawn or (f"Drawn: seed {claim.seeds[0]}." if len(claim.seeds) > 1 else "")
    parts = [
        f"## {claim.title}",
        textwrap.fill(claim.text, 125),
        table(rows).rstrip(),
        table(seen.table).rstrip(),
        f"The other settings that were tried:\n\n{table(claim.tried).rstrip()}" if claim.tried else "",
        *(f"![{claim.title}](pictures/{name}.svg)" for name in claim.pictures()),
        drawn,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def report(parts: list[str], counts: tuple[int, int], seconds: float) -> str:
    """RESULTS.md."""
    robust = sum(claim.robust for claim in CLAIMS)
    head = f"""# The gallery

What is said about gradient descent, checked by jobs that anybody can post. Each entry has its job files, what they
were expected to show and what they showed, over all the seeds that were tried. {robust} of the {len(CLAIMS)} claims are
asserted at the settings of their job files: `make gallery` fails when one does not hold. The other results are shown
as they are. Where settings were chosen after other ones had been tried, the entry says what those showed.

Seeds change where the weights start and the order of the examples, not how a data set is split nor which labels are
wrong: those are one draw for all seeds, so "in every seed" says nothing about other splits. Losses are cross-entropy in
nats. "Train loss" is the mean over an epoch, measured while the weights change.

The shape of the landscape around trained weights is measured by the service, with `POST /v1/analyses` as any user would
send it; flatness.py, surfaces.py and averages.py hold the requests. Sharpness is that of the train loss in evaluation
mode, without weight decay, and the train losses beside it are those of the same weights.

This page was written by `make gallery`: {counts[0]} jobs and {counts[1]} analyses in {seconds / 60:.0f}
minutes on {os.cpu_count()} cores.
"""
    return "\n".join([head, *parts])


def main(slugs: list[str]) -> int:
    """Run the gallery. All jobs are submitted first, so that no slot waits for the evaluation of a claim."""
    chosen = [claim for claim in CLAIMS if not slugs or claim.slug in slugs]
    began, parts, counts, broken = time.monotonic(), [], (0, 0), 0
    with service() as client:
        waiting = {claim.folder: submit(client, claim) for claim in {each.folder: each for each in chosen}.values()}
        done: dict[str, Runs] = {}
        for claim in chosen:
            if claim.folder not in done:
                done[claim.folder] = looked(client, looks_at(claim.folder), collect(client, waiting[claim.folder]))
            runs = done[claim.folder]
            seen = claim.judge(runs)
            jobs, analyses = counted(claim, runs)
            for name, picture in zip(claim.pictures(), draw_pictures(client, claim, runs), strict=True):
                (HERE / "pictures" / f"{name}.svg").write_text(picture, encoding="utf-8")
            parts.append(entry(claim, seen, jobs, analyses))
            counts, broken = (counts[0] + jobs, counts[1] + analyses), broken + (claim.robust and not seen.holds)
            print(f"{claim.slug:24} {verdict(claim, seen):18} {seen.words}", flush=True)  # noqa: T201 - a command line
    if not slugs:
        text = report(parts, counts, time.monotonic() - began)
        (HERE / "RESULTS.md").write_text(text, encoding="utf-8")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
