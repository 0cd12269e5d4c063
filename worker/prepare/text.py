"""Text as tokens: the bytes of its UTF-8, or byte pairs that are trained on it."""

import codecs
import json
import os
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from core.recipe.data.tokens import BytePairs
from core.recipe.prepare import PrepareSpec, TextEncoding
from worker.prepare.report import Report
from worker.prepare.source import InputFile
from worker.prepare.writer import DatasetWriter

BLOCK_BYTES: Final = 1 << 20
SAMPLE_BYTES: Final = 4 << 20
"""Of text that byte pairs are trained on: training takes about 190 times as much memory."""
LINE_BYTES: Final = 16 << 20
PREVIEW_CHARACTERS: Final = 200
BYTES: Final = 256
_BOM: Final = "\ufeff"


def read_text(source: InputFile, spec: PrepareSpec, out: DatasetWriter, report: Report) -> None:
    """Write `tokens` (n,) of one document: the whole file."""
    _write_tokens(lambda: _one_document(source, spec.options.encoding or "utf-8", report), spec, out, report)


def read_jsonl_text(source: InputFile, spec: PrepareSpec, out: DatasetWriter, report: Report) -> None:
    """Write `tokens` (n,) of a document for each line: the field `text_field` of its object."""
    _write_tokens(lambda: _json_documents(source, spec.options.text_field or "text", report), spec, out, report)


Pieces = Iterator[tuple[bool, str]]
"""(whether a document begins, a piece of its text)"""


def _write_tokens(pieces: Any, spec: PrepareSpec, out: DatasetWriter, report: Report) -> None:
    wanted = spec.options.tokenizer
    trained = _train_byte_pairs(pieces(), wanted, report) if isinstance(wanted, BytePairs) else None
    starts: list[int] = []
    done, first = 0, ""
    for begins, text in pieces():
        if begins:
            starts.append(done)
        first += text[: PREVIEW_CHARACTERS - len(first)]
        tokens = (
            np.frombuffer(text.encode(), dtype=np.uint8)
            if trained is None
            else np.array(trained.encode(text).ids, dtype=np.int32)
        )
        out.append("tokens", tokens)
        done += len(tokens)
    if done == 0:
        report.refuse("empty", "the file has no text")
    out.put("documents", np.array([*starts, done], dtype=np.int64))
    described: dict[str, Any] = {"kind": "bytes"}
    if isinstance(wanted, BytePairs):
        described = {"kind": "bpe", "vocabulary": wanted.bpe, **_describe_byte_pairs(trained)}
    out.finish(
        kind="tokens",
        format="text",
        vocabulary=BYTES if trained is None else trained.get_vocab_size(),
        tokenizer=described,
        preview=({"text": first},),
    )


# ---- documents


def _one_document(source: InputFile, encoding: TextEncoding, report: Report) -> Pieces:
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    lines, begins = 1, True
    for offset in range(0, max(source.size, 1), BLOCK_BYTES):
        report.progress(offset, source.size)
        block = source.read_at(offset, BLOCK_BYTES)
        try:
            text = decoder.decode(block, final=offset + len(block) >= source.size)
        except UnicodeDecodeError as error:
            row = lines + block[: max(0, error.start)].count(b"\n")
            report.refuse("bad_encoding", f"the text is not {encoding}: {error.reason}", row=row)
        if begins:
            text = text.removeprefix(_BOM)
        if "\x00" in text:
            row = lines + text[: text.index("\x00")].count("\n")
            report.refuse("nul", "there is a NUL character; this is not a text", row=row)
        lines += text.count("\n")
        if text:
            yield begins, text
            begins = False


def _json_documents(source: InputFile, field: str, report: Report) -> Pieces:
    for row, line in _lines(source, report):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            report.refuse("bad_json", "this line is not JSON", row=row)
        text = record.get(field) if isinstance(record, dict) else None
        if not isinstance(text, str):
            report.refuse("no_text", f"this line has no text in the field {field!r}", row=row, column=field)
        try:
            text.encode()
        except UnicodeEncodeError:
            report.refuse("bad_encoding", "half a surrogate pair is no text", row=row, column=field)
        if text:
            yield True, text


def _lines(source: InputFile, report: Report) -> Iterator[tuple[int, bytes]]:
    rest, number = b"", 0
    for offset in range(0, source.size, BLOCK_BYTES):
        report.progress(offset, source.size)
        *whole, rest = (rest + source.read_at(offset, BLOCK_BYTES)).split(b"\n")
        for line in whole:
            number += 1
            yield number, line
        if len(rest) > LINE_BYTES:
            report.refuse("line_too_long", f"a line of more than {LINE_BYTES >> 20} MiB", row=number + 1)
    if rest:
        yield number + 1, rest


# ---- byte pairs


def _train_byte_pairs(pieces: Pieces, wanted: BytePairs, report: Report) -> Any:
    """A byte-level BPE tokenizer (Sennrich et al. 2016) trained on the first SAMPLE_BYTES of the text."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # threads would count pairs in another order
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    sample, size = [], 0
    for _, text in pieces:
        part = text[: SAMPLE_BYTES - size]
        sample.append(part)
        size += len(part.encode())
        if size >= SAMPLE_BYTES:
            report.warn(f"byte pairs are trained on the first {SAMPLE_BYTES >> 20} MiB of the text")
            break
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=wanted.bpe, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator(sample, trainer)
    return tokenizer


def _describe_byte_pairs(tokenizer: Any) -> dict[str, Any]:
    """Tokens in the order of their numbers, and merges in the order in which they apply."""
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return {"tokens": vocabulary, "merges": [list(each) for each in model["merges"]]}
