"""The kind `analysis`: provides the weights or results that it reads, and calls the engine's analyses."""

from typing import TYPE_CHECKING, Final, cast

from core.recipe.analyses import Analysis
from core.recipe.assignment import AnalysisAssignment, AnalysisResult, Source
from worker.kinds.base import Provider, WorkerKind

if TYPE_CHECKING:
    from core.jobs.analyses import AnalysisInput, ResultInput


def build_analysis_assignment(provider: Provider, spec: Analysis) -> AnalysisAssignment:
    """The inputs of an analysis, and the tiles that an earlier attempt has computed."""
    claim = provider.claim
    return AnalysisAssignment(
        job=claim.job_id,
        attempt=claim.attempt,
        spec=spec,
        plan=claim.plan,
        sources=tuple(_provide_source(provider, number, look) for number, look in enumerate(claim.looks)),
        readings=tuple(_provide_reading(provider, number, found) for number, found in enumerate(claim.findings)),
        scratch=provider.scratch,
        resume=provider.resume_point(),
    )


def _provide_source(provider: Provider, number: int, look: "AnalysisInput") -> Source:
    """One source: weights, or only a recipe, with the dataset of their job."""
    weights, row = None, look.row
    if row is not None:
        weights = provider.weights_file(row, f"look-{number}", "the weights that the analysis reads cannot be read")
    return Source(
        label=look.label,
        job=look.job_id,
        checkpoint=row.id if row else None,
        step=row.step if row else 0,
        kind=row.kind if row else None,
        spec=look.spec,
        dataset=provider.dataset_file(look.spec.data),
        weights=weights,
    )


def _provide_reading(provider: Provider, number: int, found: "ResultInput") -> AnalysisResult:
    """The numbers and arrays of another analysis."""
    again = f"Run {found.label} again, and then this analysis."
    otherwise = f"the result of {found.label}, which the analysis reads, cannot be read"
    data = provider.weights_file(found.row, f"read-{number}", otherwise, again)
    return AnalysisResult(label=found.label, spec=cast("Analysis", found.spec), numbers=found.numbers, data=data)


def picture_kind(spec: Analysis) -> str:
    return spec.kind


ANALYSIS: Final = WorkerKind(
    name="analysis",
    assignment=AnalysisAssignment,
    build_assignment=build_analysis_assignment,
    entry_point="core.engine.analysis.run_analysis:run_analysis",
    picture_kind=picture_kind,
)
