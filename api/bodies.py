"""What clients send, where it is no recipe: strict, like everything that comes in."""

from typing import Annotated, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from api.documents import parse
from core.errors import InvalidSpec
from core.recipe.problems import field_problems
from core.recipe.text import Label, Name, Note
from core.settings import Limits

Scope = Literal["read", "write", "admin"]
Priority = Annotated[int, Field(ge=-100, le=100)]
AnyBody = TypeVar("AnyBody", bound=BaseModel)


class KeyRequest(BaseModel):
    """A key to be made. Without `expires_at` it lasts until it is revoked; without limits it gets the maker's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name | None = None
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1, max_length=3)] = ("read", "write")
    expires_at: Annotated[AwareDatetime | None, Field(description="RFC 3339")] = None
    limits: Limits = Limits()


class JobChanges(BaseModel):
    """What may change about a job. Pairs of `metadata` are added or replaced; null removes one."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Name | None = None
    priority: Priority = 0
    metadata: Annotated[dict[Label, Note | None], Field(max_length=32)] = Field(default_factory=dict)


def read_body(raw: bytes, shape: type[AnyBody]) -> AnyBody:
    """The body as one of these.

    Raises:
        MalformedError: it is no JSON.
        InvalidSpec: it is another document; each problem has its pointer.
    """
    document = parse(raw)
    try:
        return shape.model_validate_json(raw)
    except ValidationError as error:
        raise InvalidSpec(errors=field_problems(error, document, shape)) from None
