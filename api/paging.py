"""Keyset pagination by id, with one envelope for all lists."""

from collections.abc import Sequence
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Item = TypeVar("Item", bound=BaseModel)


class StrictQuery(BaseModel):
    """Query parameters. Unknown ones are refused: a misspelt `dry_run` must not start a job."""

    model_config = ConfigDict(extra="forbid")


class Paging(StrictQuery):
    """Ids sort by creation time, so `after` is the last id of the page before."""

    after: Annotated[str | None, Field(description="the `last_id` of the page before")] = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    order: Literal["asc", "desc"] = "desc"


class Page(BaseModel, Generic[Item]):
    """One page; `last_id` goes into `after` for the next one."""

    object: Literal["list"]
    data: list[Item]
    has_more: bool
    last_id: str | None


def page_envelope(data: Sequence[dict[str, object]], *, has_more: bool = False) -> dict[str, object]:
    """The envelope around objects that carry an `id`."""
    last_id = data[-1].get("id") if data else None
    return {"object": "list", "data": list(data), "has_more": has_more, "last_id": last_id}
