"""Request bodies other than recipes. Unknown fields are refused."""

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, RootModel, ValidationError
from pydantic_core import PydanticCustomError

from api.json_documents import parse_json
from core.errors import InvalidSpec
from core.ids import is_id
from core.jobs.datasets.links import MOST_PARTS
from core.recipe.analyses import Analysis
from core.recipe.prepare import PrepareOptions, WantedFormat
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


class FolderSource(BaseModel):
    """A file or a folder below one of the operator's folders (BASIN_DATASET_ROOTS)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    kind: Literal["folder"]
    path: Annotated[str, Field(min_length=1, max_length=1024)]


class S3Source(BaseModel):
    """An object, or with a slash at its end a folder, of a bucket that the operator names (BASIN_S3_PROFILES)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    kind: Literal["s3"]
    url: Annotated[str, Field(min_length=6, max_length=1024, pattern=r"^s3://")]
    profile: Annotated[str, Field(min_length=1, max_length=64)]


def _refuse_id(name: str) -> str:
    if is_id(name, "ds"):
        raise PydanticCustomError("name_is_id", "a name must not look like the id of a dataset")
    return name


DatasetName = Annotated[Name, AfterValidator(_refuse_id)]
FileName = Annotated[Name, Field(max_length=200)]


class DatasetRequest(BaseModel):
    """A dataset to be made. `bytes` and `sha256` are those of the file, which is sent next; or `source` names it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: DatasetName
    format: WantedFormat = "auto"
    filename: FileName | None = None
    bytes: Annotated[int, Field(ge=1, le=10**18)] | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    options: PrepareOptions = PrepareOptions()
    source: Annotated[FolderSource | S3Source | None, Field(discriminator="kind")] = None

    def options_document(self) -> dict[str, Any]:
        """The options as they are stored and compared."""
        return self.options.model_dump(mode="json", exclude_defaults=True)


class LinksRequest(BaseModel):
    """How many links to parts of an upload, at most."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    parts: Annotated[int, Field(ge=1, le=MOST_PARTS)] = MOST_PARTS


class SentPart(BaseModel):
    """A part that was put under its link."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    offset: Annotated[int, Field(ge=0, lt=2**63)]
    key: Annotated[str, Field(pattern=r"^uploads/ds_[0-9a-z]{26}/[0-9]{16}-[0-9a-f]{16}$")]


class PartsRequest(BaseModel):
    """Parts that were put, which follow each other from the upload's offset on."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    parts: Annotated[tuple[SentPart, ...], Field(min_length=1, max_length=MOST_PARTS)]


class SchemaRequest(PrepareOptions):
    """Corrections: each given option replaces the one before; those of `columns` are added to those before."""

    format: WantedFormat | None = None

    def merged_with(self, before: dict[str, Any]) -> dict[str, Any]:
        """The options before, corrected."""
        given = self.model_dump(mode="json", exclude_unset=True, exclude={"format"})
        columns = (before.get("columns") or {}) | given.pop("columns", {})
        return PrepareOptions.model_validate_json(json.dumps(before | given | {"columns": columns})).model_dump(
            mode="json", exclude_defaults=True
        )


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
