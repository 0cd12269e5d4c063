"""A job with one wrong field is refused with a pointer to that field, whichever field of whichever component it is."""

import json

import pytest

from core.errors import InvalidSpec
from core.recipe.parse import parse_job
from core.recipe.spec import JobSpec
from tests.support.mutants import Mutant, mutants

KNOWN = {"/optimizer/optimizer": "lion"}  # of the package, which has its own names


def by_field() -> dict[str, list[Mutant]]:
    """All mutants, by the field of the job in which they are wrong."""
    found: dict[str, list[Mutant]] = {}
    for mutant in mutants(JobSpec.model_json_schema(), KNOWN):
        found.setdefault(mutant.pointer.split("/")[1], []).append(mutant)
    return found


BY_FIELD = by_field()


@pytest.mark.parametrize("field", BY_FIELD)
def test_the_pointer_names_the_wrong_field(field: str) -> None:
    """A wrong type, a value out of range, an unknown name and an unknown field; at most one of them is wrong."""
    for mutant in BY_FIELD[field]:
        with pytest.raises(InvalidSpec) as caught:
            parse_job(json.dumps(mutant.document).encode())
        pointers = [problem.pointer for problem in caught.value.errors]
        assert mutant.named_by(pointers), (str(mutant), pointers)
        assert all(problem.message for problem in caught.value.errors)


def test_every_field_of_the_schema_is_among_them() -> None:
    """Each component has a mutant of each of its fields: no part of the schema is passed over."""
    schema = JobSpec.model_json_schema()
    pointers = {mutant.pointer for mutants_of in BY_FIELD.values() for mutant in mutants_of}
    writable = [part for part in (schema, *schema["$defs"].values()) if "readOnly" not in part]
    properties = [field for part in writable for field in part.get("properties", {}).items()]
    fields = {name for name, field in properties if "readOnly" not in field}
    assert fields <= {pointer.rpartition("/")[2] for pointer in pointers}
    assert {pointer.split("/")[1] for pointer in pointers} == {*schema["properties"], "no_such_field"}
