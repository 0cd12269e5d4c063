"""Which class and which split each image of an archive has: from its folders, or from a table beside the images."""

import csv
import io
import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from core.recipe.data.manifest import SPLITS
from worker.prepare.archive import Member
from worker.prepare.image_file import SUFFIXES
from worker.prepare.report import Report

SPLIT_NAMES: Final = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "test": 2, "testing": 2}
FILE_FIELDS: Final = ("file", "file_name", "filename", "path", "image")
CLASS_FIELDS: Final = ("label", "class", "target", "category", "species")
MOST_TABLE_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class ImagePlace:
    """The class and the split (an index of SPLITS; None: the upload has none) of one image."""

    label: str
    split: int | None = None


ImageIndex = Mapping[str, ImagePlace]
"""Name of a member -> its place."""


def is_image_name(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def is_hidden(name: str) -> bool:
    """Whether a part of the name begins with a dot."""
    return any(part.startswith(".") for part in name.split("/"))


def is_table_name(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in {".csv", ".jsonl"}


def index_by_folder(names: Sequence[str], report: Report) -> dict[str, ImagePlace]:
    """`class/image`, or `train/class/image` with `val` and `test` beside it; one folder around all of them is skipped.

    Folders below a class are part of the image's name.
    """
    parts = {name: PurePosixPath(name).parts for name in names}
    while len({each[0] for each in parts.values()}) == 1 and all(len(each) > 2 for each in parts.values()):
        if next(iter(parts.values()))[0].lower() in SPLIT_NAMES:
            break
        parts = {name: each[1:] for name, each in parts.items()}
    splits = all(each[0].lower() in SPLIT_NAMES and len(each) > 2 for each in parts.values())
    found = {}
    for name, each in parts.items():
        rest = each[1:] if splits else each
        if len(rest) < 2:
            report.error("no_class", "this image is in no class folder; use class/image.png", file=name)
            continue
        found[name] = ImagePlace(
            unicodedata.normalize("NFC", rest[0]), SPLIT_NAMES[each[0].lower()] if splits else None
        )
    report.check()
    return found


def index_by_table(table: Member, content: bytes, names: Sequence[str], report: Report) -> dict[str, ImagePlace]:
    """A CSV or JSONL with a column for the file and one for the class, and perhaps one named `split`.

    File names are relative to the table's folder.
    """
    if len(content) > MOST_TABLE_BYTES:
        report.refuse("too_large", f"the table has more than {MOST_TABLE_BYTES >> 20} MiB", file=table.name)
    folder, known = PurePosixPath(table.name).parent, set(names)
    found: dict[str, ImagePlace] = {}
    fields: tuple[str, str] | None = None
    for row, record in _records(table, content, report):
        fields = fields or _fields(record, table, report)
        name = (folder / str(record.get(fields[0], ""))).as_posix()
        label = record.get(fields[1])
        if name not in known:
            report.error("missing_file", f"there is no file {name!r} in the archive", file=table.name, row=row)
        elif name in found:
            report.error("duplicate_file", f"{name!r} has two rows", file=table.name, row=row)
        elif label is None or label == "":
            report.error("missing_value", "the class is empty", file=table.name, row=row, column=fields[1])
        else:
            found[name] = ImagePlace(_class_name(label), _split_of(record, table, row, report))
    report.check()
    if not found:
        report.refuse("empty", "the table has no rows", file=table.name)
    if left := len(known - found.keys()):
        report.warn(f"{left} images are not in {table.name} and are left out")
    return found


def _class_name(label: Any) -> str:
    return unicodedata.normalize("NFC", label if isinstance(label, str) else json.dumps(label))


def _split_of(record: Mapping[str, Any], table: Member, row: int, report: Report) -> int | None:
    if "split" not in record:
        return None
    word = str(record["split"]).strip().lower()
    if word not in SPLIT_NAMES:
        allowed = ", ".join(SPLITS)
        report.error("bad_split", f"{word!r} is not one of {allowed}", file=table.name, row=row, column="split")
    return SPLIT_NAMES.get(word)


def _fields(record: Mapping[str, Any], table: Member, report: Report) -> tuple[str, str]:
    lower = {name.strip().lower(): name for name in record}
    chosen = []
    for what, wanted in (("the file", FILE_FIELDS), ("the class", CLASS_FIELDS)):
        name = next((lower[each] for each in wanted if each in lower), None)
        if name is None:
            report.refuse("no_column", f"no column names {what}: call it {' or '.join(wanted)}", file=table.name, row=1)
        chosen.append(name)
    return chosen[0], chosen[1]


def _records(table: Member, content: bytes, report: Report) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(line, row) of the table; lines count from 1."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        report.refuse("not_utf8", "the table is not UTF-8", file=table.name, row=line)
    if table.name.lower().endswith(".csv"):
        yield from _csv_records(text, table, report)
        return
    for number, written in enumerate(text.splitlines(), 1):
        if written.strip():
            try:
                record = json.loads(written)
            except (ValueError, RecursionError):
                record = None
            if not isinstance(record, dict):
                report.refuse("bad_json", "this line is not a JSON object", file=table.name, row=number)
            yield number, record


def _csv_records(text: str, table: Member, report: Report) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.reader(io.StringIO(text), strict=True)
    try:
        header = next(reader, [])
        for values in reader:
            if not values:
                continue
            if len(values) != len(header):
                detail = f"{len(values)} values where the header has {len(header)}"
                report.refuse("ragged_row", detail, file=table.name, row=reader.line_num)
            yield reader.line_num, dict(zip(header, values, strict=True))
    except csv.Error as error:
        report.refuse("bad_csv", str(error), file=table.name, row=reader.line_num)
