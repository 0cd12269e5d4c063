"""Text files: one pass that checks encoding and NUL, and streams of their content as UTF-8.

The check comes before any parser: it names the line of the first bad byte, which pyarrow cannot.
"""

import codecs
import io
from dataclasses import dataclass
from typing import Final

from worker.prepare.report import Report
from worker.prepare.source import InputFile
from worker.prepare.table.rows import BLOCK_BYTES

CODECS: Final = {"utf-8": "utf-8", "latin-1": "latin-1", "cp1252": "cp1252", "utf-16": "utf-16"}
"""The accepted values of `options.encoding`; the confined process loads these before it is confined."""
_UTF8_BOM: Final = codecs.BOM_UTF8
_UTF16_BOMS: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_STEP: Final = 1 << 20  # bytes read at once where text is decoded


@dataclass(frozen=True, slots=True)
class TextFacts:
    """What one pass over a text file finds."""

    encoding: str
    quotes: bool
    """Is there any double quote?"""
    tail: bytes
    """The last bytes in UTF-8, more than a block where there are as many."""


class TextStream(io.RawIOBase):
    """The content as UTF-8 without a byte-order mark. Raises UnicodeDecodeError where it is not in `encoding`."""

    def __init__(self, source: InputFile, encoding: str) -> None:
        super().__init__()
        self._raw = source.open()
        self._size = max(1, source.size)
        self._decoder = None if encoding == "utf-8" else codecs.getincrementaldecoder(CODECS[encoding])("strict")
        self._pending = b""
        self._ended = False
        self.lines = 1
        """The line in which the bytes that are not yet decoded begin."""
        if encoding == "utf-8" and source.read_at(0, 3) == _UTF8_BOM:
            self._raw.seek(3)

    def readable(self) -> bool:
        return True

    def fraction(self) -> float:
        """The share of the file that has been read."""
        return self._raw.tell() / self._size

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]  # any object with a buffer
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def read(self, size: int | None = -1) -> bytes:
        """At most `size` bytes, and as many but at the end of the file."""
        if self._decoder is None:
            return self._raw.read(size)
        parts, count = [self._pending], len(self._pending)
        while not self._ended and (size is None or size < 0 or count < size):
            data = self._raw.read(_STEP)
            self._ended = not data
            parts.append(self._decoder.decode(data, final=self._ended).encode())
            self.lines += parts[-1].count(b"\n")
            count += len(parts[-1])
        whole = b"".join(parts)
        end = len(whole) if size is None or size < 0 else size
        self._pending = whole[end:]
        return whole[:end]


def scan_text(source: InputFile, encoding: str | None, report: Report) -> TextFacts:
    """Check a whole text file. Refused: empty, bytes that are not in its encoding, NUL."""
    start = source.read_at(0, 2)
    if not source.size:
        report.refuse("empty", "the file is empty")
    if encoding is None and start in _UTF16_BOMS:
        report.refuse("encoding", "the file is UTF-16: set the option encoding to utf-16, or store it as UTF-8", row=1)
    encoding = encoding or "utf-8"
    stream = TextStream(source, encoding)
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    lines, quotes, tail = 1, False, b""
    plain = True
    while True:
        try:
            data = stream.read(BLOCK_BYTES)
            if encoding == "utf-8" and not (plain and data.isascii()):
                decoder.decode(data, final=not data)
                plain = not decoder.getstate()[0]
        except UnicodeDecodeError as error:
            _refuse_bytes(report, error, lines if encoding == "utf-8" else stream.lines, encoding)
        if not data:
            break
        if (found := data.find(b"\0")) >= 0:
            line = lines + data.count(b"\n", 0, found)
            report.refuse("nul", "the text holds a NUL character: the file is binary, or damaged", row=line)
        quotes = quotes or b'"' in data
        lines += data.count(b"\n")
        tail = tail[-BLOCK_BYTES:] + data
    return TextFacts(encoding, quotes, tail)


def _refuse_bytes(report: Report, error: UnicodeDecodeError, lines: int, encoding: str) -> None:
    """`lines` is the line in which the failed block begins."""
    newline = b"\n" if encoding != "utf-16" else b"\n\0"
    line = lines + bytes(error.object[: error.start]).count(newline)
    byte = error.object[error.start]
    hint = "set the option encoding (latin-1, cp1252, utf-16), or store it as UTF-8" if encoding == "utf-8" else ""
    detail = f"byte 0x{byte:02x} is not {encoding.upper()}" + (f": {hint}" if hint else "")
    report.refuse("encoding", detail, row=line)
