"""Conditional requests and ranges (RFC 9110, sections 13 and 14), for content that never changes under its ETag."""

import re
from dataclasses import dataclass

from api.errors import HttpError

_RANGE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*")
_TAG = re.compile(r'(?:W/)?"[^"]*"')


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes `start` … `end` - 1 of `size`."""

    start: int
    end: int
    size: int

    @property
    def content_range(self) -> str:
        """The header's value."""
        return f"bytes {self.start}-{self.end - 1}/{self.size}"


def matches_etag(if_none_match: str | None, etag: str) -> bool:
    """Whether the client already has this content. Tags are compared weakly (RFC 9110, section 13.1.2)."""
    if if_none_match is None:
        return False
    wanted = etag.removeprefix("W/")
    return if_none_match.strip() == "*" or wanted in {tag.removeprefix("W/") for tag in _TAG.findall(if_none_match)}


def parse_range(header: str | None, if_range: str | None, etag: str, size: int) -> ByteRange | None:
    """The requested range; None means the whole content: no range, several ranges, bad syntax, or a stale If-Range.

    Raises:
        HttpError: 416 when the range starts beyond the end.
    """
    match = _RANGE.fullmatch(header) if header and len(header) < 64 else None
    if match is None or (if_range is not None and if_range.strip() != etag):
        return None
    first, last = match.groups()
    if not first and not last:
        return None
    if not first:  # the last n bytes
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1 if last else size)
        if last and int(last) < start:
            return None
    if start >= min(end, size):
        raise HttpError(
            416, "range_not_satisfiable", f"The content has {size} bytes.", {"Content-Range": f"bytes */{size}"}
        )
    return ByteRange(start, end, size)
