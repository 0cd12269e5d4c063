"""An inconsistency of the database or of the store, and what to do about it."""

from dataclasses import dataclass
from typing import Final, Literal

Rule = Literal[
    "state", "ending", "timeline", "attempt", "metrics", "checkpoint", "input", "object", "dataset", "promise", "orphan"
]

_RESTORED: Final = "check whether a backup was restored only in part, or the database was edited by hand"
REMEDIES: Final[dict[Rule, str]] = {
    "state": f"cancel the job and submit it again; {_RESTORED}",
    "ending": f"what the job left can be used; {_RESTORED}",
    "timeline": f"the present status counts; {_RESTORED}",
    "attempt": f"rows name an attempt that never ran: do not trust them; {_RESTORED}",
    "metrics": "do not trust curves of this job; `basin verify JOB` says whether to trust its weights",
    "checkpoint": "a running job repairs this with its next checkpoint; submit any other job again",
    "input": "cancel the analysis and submit it again with inputs that still exist",
    "object": "bring it back from a backup of the store; without it a job falls back to an older checkpoint",
    "dataset": "bring it back from a backup of the store, or delete it and upload it again; jobs with it cannot start",
    "promise": f"a repeated POST with this key gets a wrong answer until the key expires; {_RESTORED}",
    "orphan": f"rows without a job only take space; {_RESTORED}",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """An inconsistency: the rule, the job (empty: of none), and the checkpoint, series, object or key of that job."""

    rule: Rule
    job_id: str
    about: str
    message: str

    @property
    def do(self) -> str:
        """What an operator can do about it."""
        return REMEDIES[self.rule]
