"""The assembly of the parts of a landscape."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Final, Literal

from core.errors import FieldProblem
from core.recipe.analyses.base import AnyAnalysis, ResultsSpec
from core.recipe.analyses.landscape import Landscape

FREE: Final = frozenset({"part", "name", "priority", "metadata", "resources"})
"""Fields in which parts may differ."""
ORIGIN: Final = frozenset({"job", "weights", "checkpoint", "checkpoints"})
"""Fields that select the weights, which were resolved when the parts were submitted."""


class Assembly(ResultsSpec):
    """The landscape that consists of these parts: numbers, arrays and pictures as if it was computed as a whole.

    The parts are landscapes that differ in their `part` alone, all parts from 1 to the last, in any order. Parts that
    were computed on one kind of processor with one release fit bit for bit; a warning reports parts whose directions
    differ by rounding.
    """

    summary: ClassVar[str] = "The parts of a landscape, computed by several workers, as one."
    paper: ClassVar[str | None] = Landscape.paper
    implementation: ClassVar[str] = "core.engine.analysis.assembly"

    kind: Literal["assembly"] = "assembly"

    def problems(self, subjects: Sequence[AnyAnalysis]) -> Iterator[FieldProblem]:
        """Parts that do not fit together; `subjects` are the specs of the parts."""
        parts: list[Landscape] = []
        for place, each in enumerate(subjects):
            if not isinstance(each, Landscape) or each.part is None:
                message = f"it is a whole {each.kind}, not a part of a landscape"
                yield FieldProblem(
                    f"/analyses/{place}", message, 'submit landscapes with "part": {"number": 1, "of": 4}'
                )
                return
            parts.append(each)
        yield from _mismatched_parts(parts)
        yield from _missing_or_repeated_parts(
            [each.part.number for each in parts if each.part], max(_part_count(each) for each in parts)
        )


def _part_count(spec: Landscape) -> int:
    return spec.part.of if spec.part else 1


def _mismatched_parts(parts: Sequence[Landscape]) -> Iterator[FieldProblem]:
    """Parts that belong to another landscape than the first."""
    first = _shared_fields(parts[0])
    for place, each in enumerate(parts):
        ours = _shared_fields(each)
        if _part_count(each) != _part_count(parts[0]):
            message = f"it is one of {_part_count(each)} parts, the first is one of {_part_count(parts[0])}"
            yield FieldProblem(f"/analyses/{place}", message, "take parts of one landscape")
        elif others := [name for name in first if first[name] != ours[name]]:
            message = f"it is of another landscape than the first: its {', '.join(others)} differ"
            yield FieldProblem(f"/analyses/{place}", message, "take parts that differ in their number alone")


def _shared_fields(spec: Landscape) -> dict[str, Any]:
    return spec.model_dump(mode="json", exclude=set(FREE | ORIGIN))


def _missing_or_repeated_parts(numbers: Sequence[int], of: int) -> Iterator[FieldProblem]:
    """Parts that are repeated, and those that are missing."""
    for number, count in Counter(numbers).items():
        if count > 1:
            place = numbers.index(number, numbers.index(number) + 1)
            yield FieldProblem(f"/analyses/{place}", f"part {number} is given {count} times", "name each part once")
    missing = [str(number) for number in range(1, of + 1) if number not in numbers]
    if missing:
        message = f"of {of} parts {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
        yield FieldProblem("/analyses", message, "submit the missing parts, and name all parts")
