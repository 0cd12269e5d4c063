"""Arrays of strings read as numbers, dates and booleans, by Arrow's functions: no Python code per cell."""

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

TRUE_WORDS: Final = ("true", "yes")
FALSE_WORDS: Final = ("false", "no")
MORE_TRUE_WORDS: Final = (*TRUE_WORDS, "1", "t", "y", "on")
MORE_FALSE_WORDS: Final = (*FALSE_WORDS, "0", "f", "n", "off")
"""With a correction to boolean these count too."""
_DATE: Final = (
    r"^\d{4}-\d{2}-\d{2}"
    r"([T ]([01]\d|2[0-3]):[0-5]\d(:[0-5]\d([.,]\d{1,9})?)?( ?(Z|[+-]\d{2}(:?\d{2})?))?)?$"
)
"""ISO 8601: a date, or a date and a time, with or without an offset."""
Numbers = np.ndarray[Any, np.dtype[np.float64]]


def nullify_words(cells: Any, words: Any) -> Any:
    """Strings in which the words for missing values are null."""
    found = pc.is_in(cells, value_set=words)
    return pc.if_else(found, pa.scalar(None, cells.type), cells) if pc.any(found).as_py() else cells


def trim_cells(cells: Any) -> Any:
    """Without blanks around; what is then empty is null."""
    trimmed = pc.utf8_trim_whitespace(cells)
    return pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, trimmed.type), trimmed)


def read_numbers(cells: Any) -> Any | None:
    """Strings as float64, or None where one of them is not a number."""
    try:
        return pc.cast(cells, pa.float64())
    except pa.ArrowInvalid:
        pass
    try:
        return pc.cast(trim_cells(cells), pa.float64())
    except pa.ArrowInvalid:
        return None


def read_dates(cells: Any) -> Any | None:
    """Strings as date32, or None where one of them is not a date. The day is the one that is written.

    Time and offset are checked and left out: the parts of a date do not need them.
    """
    distinct = cells.dictionary_encode()
    texts = trim_cells(distinct.dictionary)
    if pc.all(pc.match_substring_regex(texts, _DATE)).as_py() is False:
        return None
    try:
        days = pc.cast(pc.utf8_slice_codeunits(texts, 0, 10), pa.date32())
    except pa.ArrowInvalid:
        return None
    return pc.take(days, distinct.indices)


def read_booleans(cells: Any, *, more: bool = False) -> Any | None:
    """Strings as booleans, in any case, or None where one of them is not."""
    true, false = (MORE_TRUE_WORDS, MORE_FALSE_WORDS) if more else (TRUE_WORDS, FALSE_WORDS)
    words = pc.utf8_lower(trim_cells(cells))
    truths = pc.is_in(words, value_set=pa.array(true))
    known = pc.or_(truths, pc.is_in(words, value_set=pa.array(false)))
    if pc.all(pc.or_(known, pc.is_null(words))).as_py() is False:
        return None
    return pc.if_else(pc.is_null(words), pa.scalar(None, pa.bool_()), truths)


def find_first_bad(cells: Any, read: Any) -> int:
    """The index of the first cell that `read` does not accept; there is one."""
    good, bad = 0, len(cells)  # read accepts the first `good` cells, and not the first `bad`
    while bad - good > 1:
        middle = (good + bad) // 2
        if read(cells.slice(good, middle - good)) is None:
            bad = middle
        else:
            good = middle
    return good


def split_date(days: Numbers) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Days since 1970-01-01 as (n, 4) of DATE_PARTS.

    year; sine and cosine of 2 pi (day of the year - 1) / days of that year; weekday, Monday 0.
    """
    dates = days.astype("int64").astype("datetime64[D]")
    years = dates.astype("datetime64[Y]")
    starts, ends = years.astype("datetime64[D]"), (years + 1).astype("datetime64[D]")
    angle = 2 * np.pi * ((dates - starts) / (ends - starts))
    weekday = (days.astype("int64") + 3) % 7  # 1970-01-01 was a Thursday
    parts = (years.astype("int64") + 1970, np.sin(angle), np.cos(angle), weekday)
    return np.stack([part.astype(np.float32) for part in parts], axis=1)
