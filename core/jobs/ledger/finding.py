"""Something that should not stand in the database, or not in the store."""

from dataclasses import dataclass
from typing import Final, Literal

Rule = Literal[
    "state", "ending", "timeline", "attempt", "metrics", "checkpoint", "input", "object", "promise", "orphan"
]

_RESTORED: Final = "see whether a backup was restored in part, or somebody wrote into the database"
REMEDIES: Final[dict[Rule, str]] = {
    "state": f"cancel the job and submit it again; {_RESTORED}",
    "ending": f"what the job left can be used; {_RESTORED}",
    "timeline": f"the present status counts; {_RESTORED}",
    "attempt": f"somebody wrote under an attempt that never was: do not trust this; {_RESTORED}",
    "metrics": "do not trust curves of this job; `basin verify JOB` says whether to trust its weights",
    "checkpoint": "a job that runs mends this with its next checkpoint, another one has to be submitted again",
    "input": "cancel the analysis and ask again, for something that is still there",
    "object": "bring it back from a backup of the store; without it a job falls back to an older checkpoint",
    "promise": f"a repeated POST with this key is answered wrongly until the key expires; {_RESTORED}",
    "orphan": f"rows without a job cost only room; {_RESTORED}",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What does not hold, of which job (empty: of none), and about which checkpoint, series, object or key of it."""

    rule: Rule
    job_id: str
    about: str
    message: str

    @property
    def do(self) -> str:
        """What an operator can do about it."""
        return REMEDIES[self.rule]
