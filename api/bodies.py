"""Request bodies other than recipes. Unknown fields are refused."""

from typing import Annotated, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, RootModel, ValidationError

from api.json_documents import parse_json
from core.errors import InvalidSpec
from core.recipe.analyses import Analysis
from core.recipe.text_fields import Label, Name, Note
from core.recipe.validation_errors import field_problems
from core.settings import Limits

Scope = Literal["read", "write", "admin"]
Priority = Annotated[int, Field(ge=-100, le=100)]
AnyBody = TypeVar("AnyBody", bound=BaseModel)


class KeyRequest(BaseModel):
    """A key to be made. Without `expires_at` it lasts until it is revoked. Limits that are left out are the caller's.

    Without `project` it belongs to the caller's project; only administrators of `default` can name another one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name | None = None
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1, max_length=3)] = ("read", "write")
    expires_at: Annotated[AwareDatetime | None, Field(description="RFC 3339")] = None
    limits: Limits = Limits()
    project: Name | None = None


class ProjectRequest(BaseModel):
    """A project to be made."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Name


class JobChanges(BaseModel):
    """What may change about a job. Pairs of `metadata` are added or replaced; null removes one."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Name | None = None
    priority: Priority = 0
    metadata: Annotated[dict[Label, Note | None], Field(max_length=32)] = Field(default_factory=dict)


class RetryRequest(BaseModel):
    """`again`: also when the job was retried before."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    again: bool = False


class ForkRequest(BaseModel):
    """The checkpoint from which the new job continues, and the fields of the spec that change; each is replaced whole.

    `at` is the step or the id of a resumable checkpoint; without it, the newest.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    at: Annotated[int, Field(ge=0, lt=2**63)] | Annotated[str, Field(pattern=r"^ckpt_[0-9a-z]{26}$")] | None = None
    changes: Annotated[dict[Annotated[str, Field(max_length=64)], JsonValue], Field(max_length=64)] = Field(
        default_factory=dict
    )


class AnalysisRequest(RootModel[Analysis]):
    """An analysis; `kind` selects one of these."""


def read_body(raw: bytes, shape: type[AnyBody]) -> AnyBody:
    """The body as an instance of `shape`.

    Raises:
        MalformedError: the body is not JSON.
        InvalidSpec: the document does not fit `shape`; each problem has a JSON pointer.
    """
    document = parse_json(raw)
    try:
        return shape.model_validate_json(raw)
    except ValidationError as error:
        raise InvalidSpec(errors=field_problems(error, document, shape)) from None
