"""What a file is, by its content. The name that its owner gave it decides only where the content does not."""

import json
import zlib
from collections import Counter
from pathlib import PurePosixPath
from typing import Final, get_args

from core.recipe.prepare import Delimiter, FileFormat, PrepareSpec
from worker.prepare.archive import open_zip
from worker.prepare.report import Report
from worker.prepare.source import InputFile

SAMPLE_BYTES: Final = 64 << 10
IMAGE_ENDINGS: Final = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
IDX_TYPES: Final = frozenset({0x08, 0x09, 0x0B, 0x0C, 0x0D, 0x0E})
DELIMITERS: Final[tuple[Delimiter, ...]] = get_args(Delimiter)
TEXT_ENDINGS: Final[dict[str, FileFormat]] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".txt": "text",
}
"""Files that should be text: where they are not, the reader names the place."""
_SHARE: Final = 0.9
"""Of the records that must have the usual number of fields."""
_HINTS: Final = (
    (b"\x89PNG\r\n", "one image is no dataset: put the images into a zip, with one folder for each class"),
    (b"\xff\xd8\xff", "one image is no dataset: put the images into a zip, with one folder for each class"),
    (b"GIF8", "one image is no dataset: put the images into a zip, with one folder for each class"),
    (b"\x89HDF\r\n", "HDF5 is not read: save the arrays with numpy.savez(file, inputs=…, targets=…)"),
    (b"\x80\x02", "a pickle is not read, because it can run code: save the arrays with numpy.savez"),
    (b"\x80\x03", "a pickle is not read, because it can run code: save the arrays with numpy.savez"),
    (b"\x80\x04", "a pickle is not read, because it can run code: save the arrays with numpy.savez"),
    (b"\x80\x05", "a pickle is not read, because it can run code: save the arrays with numpy.savez"),
    (b"%PDF", "a PDF is not read: save its text or its table by itself"),
    (b"ARROW1", "Arrow files are not read: save it as Parquet"),
    (b"BZh", "bzip2 is not read: unpack the file first"),
    (b"\xfd7zXZ", "xz is not read: unpack the file first"),
    (b"7z\xbc\xaf", "7z is not read: make a zip or a tar of it"),
    (b"\x28\xb5\x2f\xfd", "zstd is not read: unpack the file first"),
)
UNKNOWN: Final = "the content is none of the formats that are read; name the format if it is one of them"


def guess_format(source: InputFile, spec: PrepareSpec, report: Report) -> FileFormat:
    """The format of the content.

    Raises:
        Refused: it is none that is read; the message says what it is, as far as known, and what to do.
    """
    if source.size == 0:
        report.refuse("empty", "the file is empty")
    head = source.read_at(0, SAMPLE_BYTES)
    if found := _guess_binary(source, head, report):
        return found
    for magic, hint in _HINTS:
        if head.startswith(magic):
            report.refuse("unknown_format", hint)
    text = _decode_sample(head, spec.options.encoding)
    ending = _ending(spec.filename)
    if text is None and ending in TEXT_ENDINGS:
        return TEXT_ENDINGS[ending]
    if text is None:
        report.refuse("unknown_format", UNKNOWN)
    return _guess_text(text, ending, report)


def sniff_delimiter(sample: str) -> Delimiter | None:
    """The delimiter of a table in the first part of a file; None: no character divides the lines evenly.

    `sample` may end in the middle of a line, if it is longer than one.
    """
    best = max((_evenness(sample, each), -place) for place, each in enumerate(DELIMITERS))
    share, fields = best[0]
    return DELIMITERS[-best[1]] if fields > 0 and share >= _SHARE else None


def looks_like_idx(head: bytes) -> bool:
    """Whether these bytes begin an IDX file: two zeros, a type, a number of dimensions."""
    return len(head) >= 8 and head[:2] == b"\0\0" and head[2] in IDX_TYPES and 1 <= head[3] <= 8


def _guess_binary(source: InputFile, head: bytes, report: Report) -> FileFormat | None:
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _guess_zip(source, report)
    if head.startswith(b"\x1f\x8b"):
        return _guess_gzip(head, report)
    if head.startswith(b"PAR1") and source.read_at(max(0, source.size - 4), 4) != b"PAR1":
        report.refuse("unreadable", "the Parquet file ends too early")
    length = int.from_bytes(head[:8], "little")
    tests: tuple[tuple[bool, FileFormat], ...] = (
        (head.startswith(b"PAR1"), "parquet"),
        (head.startswith(b"\x93NUMPY"), "npy"),
        (head[257:262] == b"ustar" and looks_like_idx(head[512:]), "idx"),
        (head[257:262] == b"ustar" and looks_like_idx_gzip(head[512:]), "idx"),
        (head[257:262] == b"ustar", "images"),
        (looks_like_idx(head), "idx"),
        (head[8:9] == b"{" and 2 <= length <= source.size - 8, "safetensors"),
    )
    return next((name for matches, name in tests if matches), None)


def _guess_zip(source: InputFile, report: Report) -> FileFormat:
    names = open_zip(source, report).namelist()
    files = [name for name in names if not name.endswith("/") and "__MACOSX" not in name]
    found = _guess_members(files)
    if found is None and "[Content_Types].xml" in names:
        report.refuse("unknown_format", "an office document is not read: save the sheet as CSV")
    if found is None:
        there = f"the zip holds neither images nor arrays but {', '.join(files[:5]) or 'nothing'}"
        report.refuse("unknown_format", f"{there}; send a table or a text by itself, not in a zip")
    return found


def _guess_members(files: list[str]) -> FileFormat | None:
    endings = Counter(_ending(name) for name in files)
    if files and endings[".npy"] == len(files):
        return "npz"
    if sum(endings[each] for each in IMAGE_ENDINGS):
        return "images"
    return "idx" if any("idx" in PurePosixPath(name).name for name in files) else None


def _guess_gzip(head: bytes, report: Report) -> FileFormat:
    try:
        start = zlib.decompressobj(wbits=31).decompress(head, 2048)
    except zlib.error as error:
        report.refuse("unreadable", f"the gzip file is broken: {error}")
    is_tar, inner = start[257:262] == b"ustar", start[512:]
    if not is_tar and not looks_like_idx(start):
        report.refuse("unknown_format", "of gzip files only IDX and tar.gz are read: unpack the file first")
    return "images" if is_tar and not looks_like_idx(inner) and not looks_like_idx_gzip(inner) else "idx"


def looks_like_idx_gzip(head: bytes) -> bool:
    """Whether these bytes begin a gzip file of an IDX file."""
    try:
        return head[:2] == b"\x1f\x8b" and looks_like_idx(zlib.decompressobj(wbits=31).decompress(head, 8))
    except zlib.error:
        return False


def _decode_sample(head: bytes, encoding: str | None) -> str | None:
    """The first part of a text; None: it is not text. A character that is cut at its end is left out."""
    if encoding is None and head.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    if encoding != "utf-16" and b"\0" in head:
        return None
    text = head.decode(encoding or "utf-8-sig", errors="replace")
    odd = sum(each < " " and each not in "\t\r\n\f\x1b" for each in text)
    return None if odd > len(text) // 100 else text


def _guess_text(text: str, ending: str, report: Report) -> FileFormat:
    first = text.lstrip()[:1]
    if first == "{" and _is_json_line(text):
        return "jsonl"
    if first == "[" and ending == ".json":
        report.refuse("unknown_format", "a JSON array is not read: write one object per line (JSONL)")
    if ending in {".jsonl", ".ndjson"}:
        return "jsonl"
    if ending == ".tsv":
        return "tsv"
    delimiter = sniff_delimiter(text)
    if ending == ".csv" or (delimiter is not None and ending not in {".txt", ".md"}):
        return "tsv" if delimiter == "\t" else "csv"
    if delimiter is not None and _evenness(text, delimiter)[0] == 1.0:
        return "tsv" if delimiter == "\t" else "csv"
    return "text"


def _is_json_line(text: str) -> bool:
    line = text.lstrip().partition("\n")[0]
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return len(line) >= SAMPLE_BYTES // 2  # a line that the sample cuts


def _evenness(sample: str, delimiter: str) -> tuple[float, int]:
    """(share of the records with the usual number of delimiters, that number); quoted ones do not count."""
    counts = _count_by_record(sample, delimiter)
    if len(counts) < 2:
        return (0.0, 0)
    usual, times = Counter(counts).most_common(1)[0]
    return (times / len(counts), usual) if usual else (0.0, 0)


def _count_by_record(sample: str, delimiter: str) -> list[int]:
    """The delimiters outside quotes in each record; a last record without a line end is left out, unless it is all."""
    counts, count, blank = [], 0, True
    for number, part in enumerate(sample.split('"')):
        if number % 2:
            blank = False
            continue
        *lines, rest = part.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        for line in lines:
            count += line.count(delimiter)
            if not blank or line:
                counts.append(count)
            count, blank = 0, True
        count += rest.count(delimiter)
        blank = blank and not rest
    if not blank and len(sample) < SAMPLE_BYTES // 2:
        counts.append(count)
    return counts


def _ending(name: str | None) -> str:
    return PurePosixPath(name or "").suffix.lower()
