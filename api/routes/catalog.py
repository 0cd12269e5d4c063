"""The catalog of components, derived from the recipe: a new component appears automatically."""

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel

from api.json_documents import JsonResponse
from api.openapi import problem_responses
from api.paging import page_envelope
from core.errors import NotFound
from core.recipe.catalog import CatalogEntry, analysis_catalog, component_catalog

router = APIRouter(tags=["catalog"])


class Catalog(BaseModel):
    """Every component, by kind."""

    object: Literal["catalog"]
    optimizers: list[CatalogEntry]
    schedules: list[CatalogEntry]
    averaging: list[CatalogEntry]
    models: list[CatalogEntry]
    datasets: list[CatalogEntry]
    losses: list[CatalogEntry]
    metrics: list[CatalogEntry]
    analyses: list[CatalogEntry]


class Entries(BaseModel):
    """The components of one kind."""

    object: Literal["list"]
    data: list[CatalogEntry]
    has_more: Literal[False]
    last_id: None


@router.get("/catalog", operation_id="catalog", response_model=Catalog, responses=problem_responses())
def list_components() -> JsonResponse:
    """All components of jobs and kinds of analysis, with JSON Schema and defaults."""
    return JsonResponse({"object": "catalog", **_dump_catalog()})


@router.get("/catalog/{kind}", operation_id="catalog_kind", response_model=Entries, responses=problem_responses(404))
def list_components_of_kind(kind: str) -> JsonResponse:
    """The components of one kind: optimizers, schedules, averaging, models, datasets, losses, metrics or analyses."""
    entries = _dump_catalog().get(kind)
    if entries is None:
        raise NotFound(f"There is no such kind; the kinds are {', '.join(_dump_catalog())}.")
    return JsonResponse(page_envelope(entries))


def _dump_catalog() -> dict[str, list[dict[str, Any]]]:
    sections = {str(kind): entries for kind, entries in component_catalog().items()} | {"analyses": analysis_catalog()}
    return {kind: [each.dump() for each in entries] for kind, entries in sections.items()}
