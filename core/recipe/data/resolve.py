"""From a job's `data` and the manifest of its dataset to data with facts: sizes, task, inputs, and warnings."""

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from core.errors import FieldProblem, InvalidSpec
from core.recipe.data.augment import Rotate90, Saturation
from core.recipe.data.columns import Categories, Numbers
from core.recipe.data.dataset import Dataset
from core.recipe.data.dataset_warnings import dataset_warnings
from core.recipe.data.manifest import DatasetKind, DatasetManifest
from core.recipe.data.resolved import ResolvedDataset
from core.recipe.data.resolved_split import choose_split, dataset_split_sizes, split_problems
from core.recipe.data.table_features import feature_problems, table_cardinalities, table_features
from core.recipe.data.target import DatasetTarget, resolve_target
from core.recipe.data.tokens import BytePairs

MOST_PROBLEMS: Final = 50
MEANING: Final[dict[str, tuple[DatasetKind, ...]]] = {
    "target": ("table",),
    "features": ("table",),
    "numbers": ("table",),
    "categories": ("table",),
    "augment": ("images",),
    "context": ("tokens",),
    "tokenizer": ("tokens",),
}
"""Field of a Dataset -> the kinds of dataset for which it has a meaning; every other field has one for all."""


def resolve_dataset(data: Dataset, dataset_id: str, manifest: DatasetManifest) -> Dataset:
    """The data with its defaults filled in, `dataset` pinned to the id, and `resolved`.

    What `data` has in `resolved` has no influence, and a second call gives the same.

    Raises:
        InvalidSpec: the data does not fit the dataset; pointers are below /data.
    """
    misplaced = list(_misplaced_fields(data, manifest.kind))
    target = resolve_target(data, manifest)
    if misplaced or isinstance(target, list):
        raise InvalidSpec(errors=(*misplaced, *(target if isinstance(target, list) else ())))
    filled = _fill_defaults(data, dataset_id, manifest, target)
    if found := tuple(islice(_problems(filled, manifest, target), MOST_PROBLEMS)):
        raise InvalidSpec(errors=found)
    return filled.model_copy(update={"resolved": _resolve(filled, manifest, target)})


def _misplaced_fields(data: Dataset, kind: DatasetKind) -> Iterator[FieldProblem]:
    for field, kinds in MEANING.items():
        if kind not in kinds and getattr(data, field):
            article = "a table" if kind == "table" else kind
            yield FieldProblem(f"/data/{field}", f"it has no meaning for {article}", "leave it out")


def _fill_defaults(data: Dataset, dataset_id: str, manifest: DatasetManifest, target: DatasetTarget) -> Dataset:
    filled: dict[str, Any] = {
        "dataset": dataset_id,
        "task": target.task,
        "split_by": choose_split(data, manifest, target),
        "resolved": None,
    }
    if manifest.kind == "table":
        filled["numbers"] = data.numbers or Numbers(scale="standard" if data.standardize else "none")
        filled["categories"] = data.categories or Categories()
    return data.model_copy(update=filled)


def _problems(data: Dataset, manifest: DatasetManifest, target: DatasetTarget) -> Iterator[FieldProblem]:
    yield from split_problems(data, manifest, target)
    if manifest.kind == "table":
        yield from feature_problems(data, manifest)
        if data.numbers and data.numbers.scale != "none" and not data.standardize:
            message = f"{data.numbers.scale} scales the numbers, and standardize is false"
            yield FieldProblem("/data/numbers/scale", message, 'use "none", or leave standardize out')
    elif manifest.kind == "images":
        yield from _image_problems(data, manifest)
    elif manifest.kind == "tokens":
        yield from _tokenizer_problems(data, manifest)


def _image_problems(data: Dataset, manifest: DatasetManifest) -> Iterator[FieldProblem]:
    channels, height, width = manifest.tensors["pixels"].shape[1:]
    for index, each in enumerate(data.augment):
        pointer = f"/data/augment/{index}/op"
        if isinstance(each, Rotate90) and height != width:
            yield FieldProblem(pointer, f"images of {height} by {width} pixels are not square", "leave it out")
        if isinstance(each, Saturation) and channels != 3:
            yield FieldProblem(pointer, "the images have no colour", "leave it out")


def _tokenizer_problems(data: Dataset, manifest: DatasetManifest) -> Iterator[FieldProblem]:
    """A text has the tokens that it was prepared with."""
    made = manifest.tokenizer or {"kind": "bytes"}
    asked = data.tokenizer
    has = made["kind"] if made["kind"] == "bytes" else f"bpe with {made['vocabulary']:,} tokens"
    differs = made.get("vocabulary") != asked.bpe if isinstance(asked, BytePairs) else made["kind"] != asked
    if asked is not None and differs:
        yield FieldProblem("/data/tokenizer", f"the text was prepared as {has}", "leave it out, or upload it again")


def _resolve(data: Dataset, manifest: DatasetManifest, target: DatasetTarget) -> ResolvedDataset:
    """The facts of data without problems."""
    features = table_features(data, manifest) if manifest.kind == "table" else ()
    examples = (manifest.examples - 1) // data.context if data.context else manifest.examples
    sizes = dataset_split_sizes(data, manifest, examples)
    shapes: dict[DatasetKind, tuple[int, ...]] = {
        "table": (sum(feature.width for feature in features),),
        "tokens": (data.context or 0,),
    }
    stored = manifest.tensors.get("pixels") or manifest.tensors.get("inputs")
    return ResolvedDataset(
        dataset=data.dataset,
        version=manifest.version(),
        kind=manifest.kind,
        examples=sizes.train + sizes.validation + sizes.test,
        input_shape=shapes.get(manifest.kind) or (stored.shape[1:] if stored else ()),
        task=target.task,
        outputs=target.outputs,
        train=sizes.train,
        validation=sizes.validation,
        test=sizes.test,
        cardinalities=table_cardinalities(data, manifest, features),
        features=features,
        vocabulary=manifest.vocabulary,
        context=data.context,
        warnings=tuple(dataset_warnings(data, manifest, target)),
    )
