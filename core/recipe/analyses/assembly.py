"""The parts of a landscape put together."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Final, Literal

from core.errors import FieldProblem
from core.recipe.analyses.base import AnyAnalysis, ResultsSpec
from core.recipe.analyses.landscape import Landscape

FREE: Final = frozenset({"part", "name", "priority", "metadata", "resources"})
"""In which parts may differ."""
ORIGIN: Final = frozenset({"job", "weights", "checkpoint", "checkpoints"})
"""Words for where they look, which was settled when they were asked for."""


class Assembly(ResultsSpec):
    """The landscape whose parts these are: numbers, arrays and pictures of one that was computed in one go.

    They are asked for as landscapes that differ in their `part` alone, all parts from 1 to the last, in any order. What
    was computed on one kind of processor with one release fits to the bit; where a part was computed elsewhere, and
    directions differ by rounding, a warning says so.
    """

    summary: ClassVar[str] = "The parts of a landscape, computed by several workers, as one."
    paper: ClassVar[str | None] = Landscape.paper
    implementation: ClassVar[str] = "core.engine.analysis.assembly"

    kind: Literal["assembly"] = "assembly"

    def problems(self, subjects: Sequence[AnyAnalysis]) -> Iterator[FieldProblem]:
        """What does not fit together; `subjects` are the parts as they were asked for."""
        parts: list[Landscape] = []
        for place, each in enumerate(subjects):
            if not isinstance(each, Landscape) or each.part is None:
                message = f"it is a whole {each.kind}, and no part of a landscape"
                yield FieldProblem(
                    f"/analyses/{place}", message, 'ask for landscapes with "part": {"number": 1, "of": 4}'
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
    """Those that are of another landscape than the first."""
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
    """Parts that are there twice, and those that are not."""
    for number, count in Counter(numbers).items():
        if count > 1:
            place = numbers.index(number, numbers.index(number) + 1)
            yield FieldProblem(f"/analyses/{place}", f"part {number} is there {count} times", "name each part once")
    missing = [str(number) for number in range(1, of + 1) if number not in numbers]
    if missing:
        message = f"of {of} parts {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
        yield FieldProblem("/analyses", message, "ask for what is missing, and name all parts")
