"""What can be written into a job: read off the recipe, so that a new component shows up by itself."""

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel

from api.json_documents import Json
from api.openapi import problems
from api.paging import page
from core.errors import NotFound
from core.recipe.catalog import CatalogEntry, analyses, catalog

router = APIRouter(tags=["catalog"])


class Catalog(BaseModel):
    """Every component, by kind."""

    object: Literal["catalog"]
    optimizers: list[CatalogEntry]
    schedules: list[CatalogEntry]
    averaging: list[CatalogEntry]
    models: list[CatalogEntry]
    datasets: list[CatalogEntry]
    analyses: list[CatalogEntry]


class Entries(BaseModel):
    """The components of one kind."""

    object: Literal["list"]
    data: list[CatalogEntry]
    has_more: Literal[False]
    last_id: None


@router.get("/catalog", operation_id="catalog", response_model=Catalog, responses=problems())
def everything() -> Json:
    """All optimizers, schedules, averaging methods, models, datasets and analyses, with JSON Schema and defaults."""
    return Json({"object": "catalog", **_dumped()})


@router.get("/catalog/{kind}", operation_id="catalog_kind", response_model=Entries, responses=problems(404))
def of_kind(kind: str) -> Json:
    """The components of one kind: optimizers, schedules, averaging, models, datasets or analyses."""
    entries = _dumped().get(kind)
    if entries is None:
        raise NotFound(f"There is no such kind; there are {', '.join(_dumped())}.")
    return Json(page(entries))


def _dumped() -> dict[str, list[dict[str, Any]]]:
    sections = {str(kind): entries for kind, entries in catalog().items()} | {"analyses": analyses()}
    return {kind: [each.dump() for each in entries] for kind, entries in sections.items()}
