"""Text as bytes and as byte pairs, and every text that is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from core.errors import InvalidSpec
from core.recipe.data.manifest import DatasetManifest
from tests.support.manifests import resolve
from tests.support.prepare import prepare_here, refusal_of
from worker.prepare import text as text_module

POEM = "O Romeo, Romeo! wherefore art thou Romeo?\nDeny thy father € and refuse thy name. " * 50


def stored(folder: Path, manifest: DatasetManifest) -> dict[str, Any]:
    shards = [load_file(folder / shard.name) for shard in manifest.shards]
    found: dict[str, Any] = {}
    for name in manifest.tensors:
        found[name] = np.concatenate([shard[name] for shard in shards if name in shard])
    return found


def prepared(tmp_path: Path, content: bytes, name: str = "poem.txt", **fields: Any) -> tuple[DatasetManifest, Any]:
    (tmp_path / name).write_bytes(content)
    manifest = prepare_here(tmp_path / name, tmp_path / "out", **({"format": "text"} | fields))
    return manifest, stored(tmp_path / "out", manifest)


def test_bytes(tmp_path: Path) -> None:
    manifest, tensors = prepared(tmp_path, POEM.encode())
    assert bytes(tensors["tokens"]) == POEM.encode()
    assert tensors["documents"].tolist() == [0, len(POEM.encode())]
    assert (manifest.kind, manifest.vocabulary, manifest.tokenizer) == ("tokens", 256, {"kind": "bytes"})
    assert manifest.preview == ({"text": POEM[:200]},)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16"])
def test_other_encodings_are_stored_as_utf_8(tmp_path: Path, encoding: str) -> None:
    words = "Straße für alle\n"
    _, tensors = prepared(tmp_path, words.encode(encoding), options={"encoding": encoding})
    assert bytes(tensors["tokens"]).decode() == words


def test_characters_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A character of three bytes may be cut by the end of a block; a byte-order mark is no text."""
    monkeypatch.setattr(text_module, "BLOCK_BYTES", 7)
    _, tensors = prepared(tmp_path, b"\xef\xbb\xbf" + POEM.encode())
    assert bytes(tensors["tokens"]).decode() == POEM


def test_lines_of_json(tmp_path: Path) -> None:
    lines = [{"text": "first"}, {"text": "zweite € Zeile"}, {"text": ""}]
    content = "\n".join(json.dumps(each) for each in lines).encode()
    (tmp_path / "docs.jsonl").write_bytes(content)
    from tests.support.prepare import prepare_spec
    from worker.prepare.report import Report
    from worker.prepare.source import InputFile
    from worker.prepare.writer import DatasetWriter

    (tmp_path / "out").mkdir()
    with (tmp_path / "docs.jsonl").open("rb") as file:
        source, spec = InputFile(file.fileno()), prepare_spec(format="jsonl", options={"text_field": "text"})
        report = Report(lambda _kind, _fields: None)
        out = DatasetWriter(tmp_path / "out", source, spec, report)
        text_module.read_jsonl_text(source, spec, out, report)
    assert out.manifest is not None
    tensors = stored(tmp_path / "out", out.manifest)
    assert tensors["documents"].tolist() == [0, 5, 5 + len("zweite € Zeile".encode())]


def test_byte_pairs_give_the_text_back(tmp_path: Path) -> None:
    """The tokens and merges of the manifest alone decode the stored numbers, and are the same at every run."""
    manifest, tensors = prepared(tmp_path, POEM.encode(), options={"tokenizer": {"bpe": 300}})
    assert manifest.tokenizer is not None
    assert manifest.vocabulary == len(manifest.tokenizer["tokens"])
    assert 256 < manifest.vocabulary <= 300
    assert len(tensors["tokens"]) < len(POEM.encode()) / 2
    from tokenizers import pre_tokenizers

    words = "".join(manifest.tokenizer["tokens"][number] for number in tensors["tokens"])
    visible = dict(zip(_byte_alphabet(), range(256), strict=True))
    assert bytes(visible[each] for each in words).decode() == POEM
    assert set(visible) == set(pre_tokenizers.ByteLevel.alphabet())
    (tmp_path / "again").mkdir()
    again, _ = prepared(tmp_path / "again", POEM.encode(), options={"tokenizer": {"bpe": 300}})
    assert again.version() == manifest.version()


def test_a_job_names_the_byte_pairs_that_the_text_has(tmp_path: Path) -> None:
    """A short text gives fewer tokens than were asked for; a job names what was asked for, or nothing."""
    manifest, _ = prepared(tmp_path, POEM.encode(), options={"tokenizer": {"bpe": 300}})
    assert manifest.vocabulary is not None
    for tokenizer in (None, {"bpe": 300}):
        facts = resolve(manifest, context=8, tokenizer=tokenizer).facts()
        assert (facts.task, facts.outputs) == ("language_model", manifest.vocabulary)
    for other in ({"bpe": 301}, "bytes"):
        with pytest.raises(InvalidSpec) as refused:
            resolve(manifest, context=8, tokenizer=other)
        (problem,) = refused.value.errors
        assert (problem.pointer, problem.message) == ("/data/tokenizer", "the text was prepared as bpe with 300 tokens")


def _byte_alphabet() -> list[str]:
    """The character that stands for each byte in GPT-2's byte-level BPE: printable bytes for themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


@pytest.mark.parametrize(
    ("content", "code", "row"),
    [
        (b"", "empty", None),
        (b"one\ntwo \xff\n", "bad_encoding", 2),
        (b"one\ntwo\nthr\x00ee", "nul", 3),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes, code: str, row: int | None) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    found = refusal_of(tmp_path / "a.txt", tmp_path / "out", format="text")
    assert (found.code, found.row) == (code, row)
