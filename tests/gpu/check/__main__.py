"""Everything that Basin promises of a GPU, tried on one in a quarter of an hour. See CONTRIBUTING.md.

    python -m tests.gpu.check [--dry-run] [--only STEP …] [--seconds N]

Prints one JSON object a line: {"step", "name", "ok", "seconds", "value", "unit", "detail"}, the last one a summary.
The exit status is 1 when anything is not ok.
"""

import argparse
import json
import sys
import time

from tests.gpu.check.conduct import conduct
from tests.gpu.check.plan import STEPS
from tests.gpu.check.target import opened

SECONDS = 780.0


def main(arguments: list[str] | None = None) -> int:
    """The exit status."""
    asked = _parser().parse_args(arguments)
    chosen = [step for step in STEPS if not asked.only or step.name in asked.only]
    began = time.monotonic()
    try:
        with opened("played" if asked.dry_run else "real", asked.flaw) as target:
            tally = conduct(target, chosen, asked.seconds, sys.stdout)
    except LookupError as error:
        raise SystemExit(str(error)) from error
    summary = {
        "summary": "dry run" if asked.dry_run else "device",
        "ok": not tally.bad,
        "good": tally.good,
        "bad": tally.bad,
        "seconds": round(time.monotonic() - began, 1),
    }
    print(json.dumps(summary))  # noqa: T201 - this is what it is run for
    return 1 if tally.bad else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gpu-check", description="Try on a GPU what Basin promises of one.")
    parser.add_argument("--dry-run", action="store_true", help="play a device on this CPU")
    parser.add_argument("--only", nargs="+", choices=[step.name for step in STEPS], metavar="STEP")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for the whole check")
    parser.add_argument(
        "--flaw", choices=["", "bits", "leak"], default="", help="of the played device; it must be found"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
