"""Rows of a JSONL file: one flat object a line."""

import json
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final

import pyarrow as pa

from core.recipe.prepare import PrepareOptions
from worker.prepare.report import Report
from worker.prepare.source import InputFile
from worker.prepare.table.csv_source import words_for_missing
from worker.prepare.table.rows import BLOCK_BYTES, Block, show_cell
from worker.prepare.table.text_scan import TextStream, scan_text

BLOCK_ROWS: Final = 16_384
Row = dict[str, Any]


class _RepeatedKeyError(ValueError):
    """An object with the same key twice."""


class JsonlSource:
    """Booleans, numbers and strings keep their types; a column with several is read as strings.

    A key that a row lacks, and null, are missing values.
    """

    format = "jsonl"
    typed = True
    names: tuple[str, ...] = ()

    def __init__(self, source: InputFile, options: PrepareOptions, report: Report) -> None:
        """Refused: a text in another encoding, an empty file."""
        self._source = source
        self._report = report
        self._encoding = scan_text(source, options.encoding, report).encoding
        self._words = frozenset(words_for_missing(options))
        self._stream: TextStream | None = None
        self._families: dict[str, type | None] = {}
        """The type of the first value of each column, in the current pass."""

    def read_blocks(self, as_text: Collection[str], only: Collection[str] | None) -> Iterator[Block]:
        """Refused: lines that are no JSON object, nested values, keys that are there twice."""
        self._families = {}
        start, rows, size = 0, [], 0
        for line, text, last in self._read_lines():
            if not text.strip():
                continue
            row = self._parse_line(line, text, last)
            if row is None:
                continue
            rows.append(row)
            size += len(text)
            if len(rows) == BLOCK_ROWS or size >= BLOCK_BYTES:
                yield self._make_block(start, rows, as_text, only)
                start, rows, size = start + len(rows), [], 0
        self._report.check()
        if rows:
            yield self._make_block(start, rows, as_text, only)

    def locate_rows(self, rows: Iterable[int]) -> dict[int, int]:
        """Row, from 0 -> line, from 1."""
        wanted, found, row = set(rows), {}, 0
        for line, text, _ in self._read_lines() if wanted else ():
            if not text.strip():
                continue
            if row in wanted:
                found[row] = line
                if len(found) == len(wanted):
                    break
            row += 1
        return found

    def fraction(self) -> float:
        return self._stream.fraction() if self._stream else 0.0

    def _read_lines(self) -> Iterator[tuple[int, bytes, bool]]:
        """(line from 1, its text, does the file end in it?)"""
        self._stream = stream = TextStream(self._source, self._encoding)
        line, rest = 1, b""
        while data := stream.read(BLOCK_BYTES):
            *whole, rest = (rest + data).split(b"\n")
            for text in whole:
                yield line, text, False
                line += 1
            if len(rest) > BLOCK_BYTES:
                self._report.refuse("row_too_long", "the line is longer than 4 MiB", row=line)
        if rest:
            yield line, rest, True

    def _parse_line(self, line: int, text: bytes, last: bool) -> Row | None:  # noqa: FBT001 - of _read_lines
        """The object of a line; None with an error reported."""
        try:
            row = _DECODER.decode(text.decode())
        except _RepeatedKeyError as error:
            self._report.error("duplicate_key", f"the key {show_cell(str(error))} is there twice", row=line)
        except RecursionError:
            self._report.error("nested", "the value is nested too deeply", row=line)
        except json.JSONDecodeError as error:
            code = "truncated" if last else "bad_json"
            where = f"{error.msg} at character {error.pos + 1}"
            detail = f"the last line is cut off: {where}" if last else f"the line is not JSON: {where}"
            self._report.error(code, detail, row=line)
        except ValueError:
            self._report.error("bad_json", "a number has too many digits", row=line)
        else:
            if isinstance(row, dict):
                flat = text.count(b"{") == 1 and b"[" not in text
                return row if flat else self._check_row(line, row)
            self._report.error("not_an_object", f"the line is no object but a {type(row).__name__}", row=line)
        return None

    def _check_row(self, line: int, row: Row) -> Row | None:
        for key, value in row.items():
            if type(value) in (dict, list):
                word = "an object" if type(value) is dict else "a list"
                pointer = "/" + key.replace("~", "~0").replace("/", "~1")
                detail = f"the value of {show_cell(pointer)} is {word}; rows have to be flat"
                self._report.error("nested", detail, row=line, column=key)
                return None
        return row

    def _make_block(self, start: int, rows: list[Row], as_text: Collection[str], only: Collection[str] | None) -> Block:
        columns, mixed = {}, {}
        names: dict[str, None] = {}
        for row in rows:
            if not names.keys() >= row.keys():
                names |= dict.fromkeys(row)
        for name in names:
            if only is not None and name not in only:
                continue
            values = [row.get(name) for row in rows]
            types = set(map(type, values))
            if str in types:
                values = [None if value in self._words else value for value in values]
                types = set(map(type, values))
            families = {_FAMILIES[each] for each in types} - {None}
            if name in as_text:
                families = {str}
            elif families - {self._families.get(name)}:
                first = self._families.setdefault(name, _first_family(values))
                if families != {first}:
                    mixed[name] = _find_change(values, first)
            columns[name] = self._make_column(values, families, whole=int in types)
        return Block(start, len(rows), columns, mixed)

    def _make_column(self, values: list[Any], families: set[type | None], *, whole: bool) -> Any:
        """float64, booleans or strings; strings too where the values have several types."""
        if families <= {float}:
            if whole:  # Arrow refuses those that floats do not hold exactly
                values = [_to_float(value) if type(value) is int else value for value in values]
            return pa.array(values, pa.float64())
        if families == {bool}:
            return pa.array(values, pa.bool_())
        texts = [value if value is None or type(value) is str else json.dumps(value) for value in values]
        return pa.array([None if text is None else _without_surrogates(text) for text in texts], pa.string())


_FAMILIES: Final[dict[type, type | None]] = {int: float, float: float, bool: bool, str: str, type(None): None}


def _first_family(values: list[Any]) -> type | None:
    return next(family for value in values if (family := _FAMILIES[type(value)]) is not None)


def _find_change(values: list[Any], first: type | None) -> tuple[int, str]:
    """(index, value) of the first value of another type."""
    index = next(i for i, value in enumerate(values) if _FAMILIES[type(value)] not in (None, first))
    value = values[index]
    return index, value if type(value) is str else json.dumps(value)


def _make_object(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        seen: set[str] = set()
        raise _RepeatedKeyError(next(key for key, _ in pairs if key in seen or seen.add(key)))  # type: ignore[func-returns-value]  # add is falsy
    return row


def _to_float(value: float) -> float:
    """Infinite where an integer is beyond the range of floats."""
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _without_surrogates(text: str) -> str:
    """Half a surrogate pair, which JSON can spell and UTF-8 cannot, becomes U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_make_object)
