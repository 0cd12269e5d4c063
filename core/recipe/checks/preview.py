"""The rules for a preview of a learning rate."""

from collections.abc import Iterator

from core.errors import FieldProblem
from core.recipe.checks import averaging, optimizer, stopping
from core.recipe.learning_rate import learning_rate_plan
from core.recipe.preview import PreviewRequest


def problems(request: PreviewRequest) -> Iterator[FieldProblem]:
    """Every reason to refuse the preview; pointers are relative to the request."""
    if request.epochs is None and request.steps is None:
        yield FieldProblem("/epochs", "the run has no length", 'give "epochs" or "steps"')
        return
    run = request.run_length()
    if request.metrics and request.schedule.monitored_series() is None:
        message = f"{request.schedule.name} does not depend on evaluations"
        yield FieldProblem("/metrics", message, "leave them out, or use a schedule that does, such as plateau")
    misfits = [FieldProblem(f"/schedule{e.pointer}", e.message, e.hint) for e in request.schedule.problems(run)]
    misfits += [*averaging.of_rate(request, run), *optimizer.of_rate(request, run)]
    every = request.evaluate.every.steps(run)
    if every < 1:
        message = f"{request.evaluate.every} is less than one optimizer step here"
        misfits.append(FieldProblem("/evaluate/every", message, "make it longer"))
    yield from misfits or stopping.unreachable(learning_rate_plan(request, run), every)
