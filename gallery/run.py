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
from core.plot.chart import Look
from core.plot.draw import draw
from gallery import averages, batches, generalisation, playground, rates
from gallery.claim import Claim, Curve, PathOf, Runs, Seen, Table, Trained

HERE = Path(__file__).parent
CLAIMS = (*playground.CLAIMS, *batches.CLAIMS, *rates.CLAIMS, *generalisation.CLAIMS, *averages.CLAIMS)
Submitted = dict[str, list[tuple[int, str]]]
"""Variant -> (seed, job) of each."""

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


def submit(client: Client, claim: Claim) -> Submitted:
    """Every variant with every seed. Each job is called by its variant, as pictures of paths name it."""
    files = sorted((HERE / "jobs" / claim.folder).glob("*.yaml"))
    specs = {file.stem: jobfile.job(file.read_text(encoding="utf-8"), file.name) for file in files}
    return {
        variant: [(seed, client.submit({**spec, "seed": seed, "name": variant}).id) for seed in claim.seeds]
        for variant, spec in specs.items()
    }


def collect(client: Client, submitted: Submitted) -> Runs:
    """Wait for every job; one that did not succeed ends it all, with its reason."""
    source = Service(client)
    return {
        variant: [trained(client.wait(job), seed, source) for seed, job in jobs] for variant, jobs in submitted.items()
    }


def trained(job: Job, seed: int, source: Service) -> Trained:
    if job.status != "succeeded":
        raise RuntimeError(f"{job.name or job.id} with seed {seed} ended as {job.status}: {job.error}")
    steps, epochs = job.progress.steps or 1, job.progress.epochs or 1
    return Trained(job.id, seed, job.stop_reason or "", job.results or {}, source, steps / epochs)


def draw_picture(client: Client, claim: Claim, runs: Runs) -> str:
    """The picture beside RESULTS.md."""
    if isinstance(claim.picture, PathOf):
        return client.plot([runs[variant][0].job for variant in claim.picture.variants], kind="path")
    return draw(claim.picture(runs), Look())


def verdict(claim: Claim, seen: Seen) -> str:
    """One word for a robust claim; a fragile one may fail, and says so."""
    if claim.robust:
        return "holds" if seen.holds else "**fails**"
    return "holds here" if seen.holds else "undecided at this scale"


def table(rows: Table) -> str:
    """As Markdown; nothing for no rows."""
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]) + "\n" if lines else ""


def size(claim: Claim, jobs: int) -> str:
    """How many runs a verdict rests on."""
    seeds = claim.seeds
    told = "no randomness" if len(seeds) == 1 else f"{len(seeds)} seeds, {seeds[0]} to {seeds[-1]}"
    return f"{told}; the jobs of {claim.jobs_of}" if claim.jobs_of else f"{told}; {jobs} jobs"


def entry(claim: Claim, seen: Seen, jobs: int) -> str:
    """The claim's part of RESULTS.md."""
    how = "asserted" if claim.robust else "shown, not asserted"
    rows = [
        ("", ""),
        ("setting", claim.setting),
        ("expected", claim.expected),
        ("seen", seen.words),
        ("other settings", claim.also_tried),
        ("verdict", f"{verdict(claim, seen)} ({how}; {size(claim, jobs)})"),
        ("job files", f"[jobs/{claim.folder}](jobs/{claim.folder})"),
    ]
    drawn = claim.drawn or (f"Drawn: seed {claim.seeds[0]}." if len(claim.seeds) > 1 else "")
    parts = [
        f"## {claim.title}",
        textwrap.fill(claim.text, 125),
        table(rows).rstrip(),
        table(seen.table).rstrip(),
        f"The other settings that were tried:\n\n{table(claim.tried).rstrip()}" if claim.tried else "",
        f"![{claim.title}](pictures/{claim.slug}.svg)",
        drawn,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def report(parts: list[str], jobs: int, seconds: float) -> str:
    """RESULTS.md."""
    robust = sum(claim.robust for claim in CLAIMS)
    head = f"""# The gallery

What is said about gradient descent, checked by jobs that anybody can post. Each entry has its job files, what they
were expected to show and what they showed, over all the seeds that were tried. {robust} of the {len(CLAIMS)} claims are
asserted at the settings of their job files: `make gallery` fails when one does not hold. What is not asserted is shown
as it came out. Where settings were chosen after other ones had been tried, the entry says what those showed.

Seeds change where the weights start and the order of the examples, not how a data set is split nor which labels are
wrong: those are one draw for all seeds, so "in every seed" says nothing about other splits. Losses are cross-entropy in
nats. "Train loss" is the mean over an epoch, measured while the weights change.

This page was written by `make gallery`: {jobs} jobs in {seconds / 60:.0f} minutes on {os.cpu_count()} cores.
"""
    return "\n".join([head, *parts])


def main(slugs: list[str]) -> int:
    """Everything is submitted first, so that no slot waits for a judge."""
    chosen = [claim for claim in CLAIMS if not slugs or claim.slug in slugs]
    began, parts, total, broken = time.monotonic(), [], 0, 0
    with service() as client:
        waiting = {claim.folder: submit(client, claim) for claim in {each.folder: each for each in chosen}.values()}
        for claim in chosen:
            runs = collect(client, waiting[claim.folder])
            seen = claim.judge(runs)
            jobs = 0 if claim.jobs_of else sum(len(each) for each in runs.values())
            picture = draw_picture(client, claim, runs)
            (HERE / "pictures" / f"{claim.slug}.svg").write_text(picture, encoding="utf-8")
            parts.append(entry(claim, seen, jobs))
            total, broken = total + jobs, broken + (claim.robust and not seen.holds)
            print(f"{claim.slug:24} {verdict(claim, seen):18} {seen.words}", flush=True)  # noqa: T201 - a command line
    if not slugs:
        text = report(parts, total, time.monotonic() - began)
        (HERE / "RESULTS.md").write_text(text, encoding="utf-8")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
