"""What to make of an uploaded file: the spec of a job of kind `prepare`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from core.recipe.component import Spec
from core.recipe.data.manifest import ColumnKind
from core.recipe.data.tokens import Tokenizer
from core.recipe.spec import Resources
from core.recipe.text_fields import Label, Name, Note

FileFormat = Literal["csv", "tsv", "jsonl", "parquet", "npy", "npz", "safetensors", "idx", "images", "text"]
WantedFormat = Literal["auto", FileFormat]
TextEncoding = Literal["utf-8", "latin-1", "cp1252", "utf-16"]
Delimiter = Literal[",", ";", "\t", "|"]
Side = Annotated[int, Field(ge=1, le=4096)]


class ColumnOptions(Spec):
    """A correction of what was guessed about one column."""

    kind: ColumnKind


class PrepareOptions(Spec):
    """How to read the file, where the guess is wrong. A field that does not belong to the format is refused by it."""

    delimiter: Delimiter | None = None
    header: bool | None = None
    encoding: TextEncoding | None = None
    columns: Annotated[dict[str, ColumnOptions], Field(max_length=4096)] = Field(default_factory=dict)
    """Column -> correction."""
    missing: Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=64)] | None = None
    """Strings that stand for a missing value, beside the usual ones: empty, NA, N/A, NaN, null, none."""
    size: tuple[Side, Side] | None = None
    """Height and width of every image, in pixels."""
    channels: Literal[1, 3] | None = None
    text_field: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """The field of a JSONL file that holds the text."""
    tokenizer: Tokenizer | None = None


class PrepareSpec(Spec):
    """Reads the content of one dataset, in any format, and writes its canonical form."""

    deterministic: ClassVar[bool] = True
    max_retries: ClassVar[int] = 0

    kind: Literal["prepare"] = "prepare"
    name: Name | None = None
    dataset: Annotated[str, Field(pattern=r"^ds_[0-9a-z]{26}$")]
    format: WantedFormat = "auto"
    options: PrepareOptions = PrepareOptions()
    filename: Annotated[str, Field(max_length=1024)] | None = None
    """The name that the file had at its owner's; it decides only where the content does not."""
    resources: Resources = Resources()
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    metadata: Annotated[dict[Label, Note], Field(max_length=16)] = Field(default_factory=dict)
