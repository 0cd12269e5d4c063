"""The catalog of a job's components, for users and forms: derived from the unions, so that there is no registration."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, get_args

from core.recipe.analyses import AnyAnalysis, analysis_classes
from core.recipe.averaging import AVERAGING, AveragingSpec
from core.recipe.component import Component, Spec
from core.recipe.data import Data
from core.recipe.losses import Loss
from core.recipe.metrics import Metric
from core.recipe.models import Model
from core.recipe.optimizers import Optimizer
from core.recipe.plugins import union_members
from core.recipe.schedules import Schedule

Described = Component | AveragingSpec
UNIONS: Final[Mapping[str, Any]] = {
    "optimizers": Optimizer,
    "schedules": Schedule,
    "models": Model,
    "datasets": Data,
    "losses": Loss,
    "metrics": Metric,
}
Kind = Literal["optimizers", "schedules", "averaging", "models", "datasets", "losses", "metrics"]


class CatalogEntry(Spec):
    """`defaults` has the optional fields with their defaults; `parameters` is the JSON Schema of all fields."""

    name: str
    summary: str
    description: str
    paper: str | None
    parameters: dict[str, Any]
    defaults: dict[str, Any]


def component_classes(kind: Kind) -> dict[str, type[Described]]:
    """Name -> class of the components of a kind."""
    if kind == "averaging":
        return {each.name: each for each in AVERAGING}
    return {str(each.model_fields["name"].default): each for each in union_members(UNIONS[kind])}


def catalog_entry(name: str, component: type[Described | AnyAnalysis]) -> CatalogEntry:
    return CatalogEntry(
        name=name,
        summary=component.summary,
        description=" ".join((component.__doc__ or "").split()),
        paper=component.paper,
        parameters=component.model_json_schema(),
        defaults=dict(_default_values(component)),
    )


def _default_values(component: type[Described | AnyAnalysis]) -> Iterator[tuple[str, Any]]:
    optional = {name: field for name, field in component.model_fields.items() if not field.is_required()}
    values = {name: field.get_default(call_default_factory=True, validated_data={}) for name, field in optional.items()}
    blank = component.model_construct(**values)
    dumped = blank.model_dump(mode="json", include=set(optional), warnings=False)
    yield from dumped.items()


def component_catalog() -> dict[Kind, list[CatalogEntry]]:
    """All components, by kind."""
    return {
        kind: [catalog_entry(name, each) for name, each in component_classes(kind).items()] for kind in get_args(Kind)
    }


def analysis_catalog() -> list[CatalogEntry]:
    """The kinds of analysis."""
    return [catalog_entry(kind, each) for kind, each in analysis_classes().items()]
