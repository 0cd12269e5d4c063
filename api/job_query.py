"""The query parameters of the list of jobs."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field

from api.paging import Paging
from core.errors import FieldProblem, InvalidRequest
from core.ids import is_id
from core.jobs.changes import MOST_PAIRS
from core.jobs.search import JobSearch

Status = Literal["queued", "running", "pausing", "paused", "cancelling", "succeeded", "failed", "cancelled"]
_METADATA = re.compile(r"metadata\[(.{1,64})\]", re.DOTALL)
BY_METADATA = {
    "name": "metadata",
    "in": "query",
    "required": False,
    "description": "metadata[key]=value, up to 16 of them: jobs that have all these pairs",
    "style": "deepObject",
    "explode": True,
    "schema": {"type": "object", "additionalProperties": {"type": "string"}},
}


def _check_id(text: str) -> str:
    if not is_id(text, "job"):
        raise ValueError("not the id of a job")
    return text


class JobsQuery(Paging):
    """Which jobs. Any other parameter must be metadata[…]: see `to_job_search`."""

    model_config = ConfigDict(extra="allow")

    status: Annotated[
        list[Status], Field(default_factory=list, max_length=8, description="any of these; repeat it for more")
    ]
    q: Annotated[str | None, Field(min_length=1, max_length=200, description="a text in name or id")] = None
    after: Annotated[str | None, AfterValidator(_check_id), Field(description="the `last_id` of the page before")] = (
        None
    )

    def to_job_search(self) -> JobSearch:
        """The search; raises InvalidRequest for unknown parameters."""
        pairs: dict[str, str] = {}
        wrong: list[FieldProblem] = []
        for name, value in (self.model_extra or {}).items():
            key = _METADATA.fullmatch(name)
            if key is None or not isinstance(value, str):
                message = "Extra inputs are not permitted" if key is None else "given twice"
                wrong.append(FieldProblem(f"/query/{name}", message))
            else:
                pairs[key[1]] = value
        strange = [text for text in (*pairs, *pairs.values(), self.q or "") if "\0" in text]
        if wrong or strange or len(pairs) > MOST_PAIRS:
            raise InvalidRequest(errors=tuple(wrong) or (FieldProblem("/query", "NUL, or too many pairs"),))
        return JobSearch(self.status, pairs, self.q)
