"""`basin verify` without a job: the ledger check; findings are printed as they are found."""

import json
from dataclasses import asdict

import typer

from core.jobs.ledger.check import Ledger
from core.jobs.ledger.finding import Finding
from core.jobs.store_identity import open_identified_store
from core.settings import Settings
from local.commands import database_of

SOUND, UNSOUND = 0, 1


def check_ledger(*, digests: bool, as_json: bool) -> int:
    """Check the ledger, print the findings and how much was read; returns the exit status."""
    settings, found = Settings(), list[Finding]()
    with database_of(settings) as db:
        ledger = Ledger(db, open_identified_store(settings, db, read_only=True), digests)
        for finding in ledger.iter_findings():
            found.append(finding)
            if not as_json:
                typer.echo(format_finding(finding))
    if as_json:
        document = {"findings": [asdict(each) | {"do": each.do} for each in found], "counts": dict(ledger.counts)}
        typer.echo(json.dumps(document, indent=2))
    else:
        read = ", ".join(f"{count} {what}" for what, count in ledger.counts.items())
        typer.echo(f"read {read}: {f'{len(found)} findings' if found else 'everything fits'}")
    return UNSOUND if found else SOUND


def format_finding(finding: Finding) -> str:
    """`metrics     job_01…  lr, chunk 1 after step 4: it overlaps …`, and the remedy on the next line."""
    about = f"{finding.about}: " if finding.about else ""
    text = f"{finding.rule:<12}{finding.job_id}  {about}{finding.message}"
    clean = "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)
    return f"{clean}\n{'':12}{finding.do}"
