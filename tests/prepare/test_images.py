"""Archives of images: what is stored, compared with pixels that were made by hand, and every file that is refused."""

import gzip
import io
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from core.recipe.data.manifest import DatasetManifest
from tests.support.prepare import prepare_here, refusal_of

Files = Mapping[str, bytes]
RED, BLUE, GRAY = (200, 10, 20), (5, 6, 250), (90, 90, 90)


def picture(colour: Any, size: tuple[int, int] = (4, 3), mode: str = "RGB", **options: Any) -> bytes:
    """(width, height) pixels of one colour, as PNG unless `format` says otherwise."""
    out = io.BytesIO()
    Image.new(mode, size, colour).save(out, options.pop("format", "PNG"), **options)
    return out.getvalue()


def zipped(files: Files, method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def tarred(files: Files) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def stored(folder: Path, manifest: DatasetManifest) -> dict[str, Any]:
    shards = [load_file(folder / shard.name) for shard in manifest.shards]
    return {name: np.concatenate([shard[name] for shard in shards]) for name in manifest.tensors}


@pytest.fixture
def images(tmp_path: Path) -> Callable[..., tuple[DatasetManifest, dict[str, Any]]]:
    """The manifest and tensors of an archive."""
    numbers = count()

    def prepare(archive: bytes, **options: Any) -> tuple[DatasetManifest, dict[str, Any]]:
        (tmp_path / "photos.zip").write_bytes(archive)
        out = tmp_path / f"out-{next(numbers)}"
        manifest = prepare_here(tmp_path / "photos.zip", out, format="images", options=options)
        return manifest, stored(out, manifest)

    return prepare


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., tuple[str, str | None, str]]:
    """(code, file, detail) of an archive that must be refused."""

    def refuse(archive: bytes, **options: Any) -> tuple[str, str | None, str]:
        (tmp_path / "photos.zip").write_bytes(archive)
        found = refusal_of(tmp_path / "photos.zip", tmp_path / "out", format="images", options=options)
        return found.code, found.file, found.detail

    return refuse


FOLDERS = {"dogs/1.png": picture(RED), "cats/1.png": picture(BLUE), "dogs/2.png": picture(BLUE)}


@pytest.mark.parametrize("pack", [zipped, tarred, lambda files: gzip.compress(tarred(files), mtime=0)])
def test_class_folders(images: Any, pack: Callable[[Files], bytes]) -> None:
    """Rows in the order of the archive, classes in that of their names."""
    manifest, tensors = images(pack(FOLDERS))
    assert (manifest.kind, manifest.examples, manifest.classes, manifest.class_counts) == (
        "images",
        3,
        ("cats", "dogs"),
        (1, 2),
    )
    assert tensors["labels"].tolist() == [1, 0, 1]
    assert tensors["pixels"].shape == (3, 3, 3, 4)
    assert [each[:, 0, 0].tolist() for each in tensors["pixels"]] == [list(RED), list(BLUE), list(BLUE)]
    assert manifest.preview[0] == {"file": "dogs/1.png", "class": "dogs"}
    assert manifest.split_counts is None


def test_one_folder_around_all_and_hidden_files(images: Any) -> None:
    extra = {"photos/.DS_Store": b"x", "__MACOSX/photos/dogs/._1.png": b"x", "photos/dogs/notes.txt": b"x"}
    manifest, _ = images(zipped({**{f"photos/{name}": each for name, each in FOLDERS.items()}, **extra}))
    assert manifest.classes == ("cats", "dogs")
    assert "1 files *.txt are no images and are left out" in manifest.warnings


def test_folders_of_splits(images: Any) -> None:
    files = {f"{split}/{name}": each for split in ("train", "val", "test") for name, each in FOLDERS.items()}
    manifest, tensors = images(zipped(files))
    assert manifest.split_counts == (3, 3, 3)
    assert tensors["split"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("labels.csv", b"file,label,split\na.png,x,train\nb.png,y,test\nc.png,x,val\n"),
        (
            "metadata.jsonl",
            (
                b'{"file_name": "a.png", "label": "x", "split": "train"}\n\n'
                b'{"file_name": "b.png", "label": "y", "split": "test"}\n'
                b'{"file_name": "c.png", "label": "x", "split": "validation"}\n'
            ),
        ),
    ],
)
def test_a_table_beside_the_images(images: Any, name: str, table: bytes) -> None:
    files = {f"set/{each}.png": picture(RED) for each in "abcd"}
    manifest, tensors = images(zipped({**files, f"set/{name}": table}))
    assert (manifest.classes, tensors["labels"].tolist(), tensors["split"].tolist()) == (
        ("x", "y"),
        [0, 1, 0],
        [0, 2, 1],
    )
    assert any("1 images are not in" in each for each in manifest.warnings)


def test_sixteen_bits_do_not_turn_white(images: Any) -> None:
    """Pillow's own conversion saturates at 255: a ramp over all values must keep its mean of 127.5."""
    ramp = (np.arange(256 * 256) % 65536).astype(np.uint16).reshape(256, 256)
    out = io.BytesIO()
    Image.fromarray(ramp).save(out, "PNG")
    manifest, tensors = images(zipped({"a/1.png": out.getvalue(), "b/1.png": out.getvalue()}))
    assert tensors["pixels"].shape == (2, 1, 256, 256)
    assert tensors["pixels"].mean() == pytest.approx(127.5, abs=0.01)
    assert any("16 bits" in each for each in manifest.warnings)


def test_orientation_alpha_palette_and_cmyk(images: Any) -> None:
    """Turned by EXIF, drawn on white, looked up, converted."""
    turned = Image.new("RGB", (4, 2), BLUE)
    turned.putpixel((0, 0), RED)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    out = io.BytesIO()
    turned.save(out, "PNG", exif=exif)
    palette = io.BytesIO()
    Image.new("RGB", (2, 4), RED).quantize(4).save(palette, "PNG")
    files = {
        "a/turned.png": out.getvalue(),
        "a/clear.png": picture((10, 20, 30, 0), (2, 4), "RGBA"),
        "b/palette.png": palette.getvalue(),
        "b/cmyk.jpg": picture((0, 255, 255, 0), (2, 4), "CMYK", format="JPEG", quality=100),
    }
    manifest, tensors = images(zipped(files))
    pixels = tensors["pixels"]
    assert pixels.shape == (4, 3, 4, 2)
    assert pixels[0, :, 0, 1].tolist() == list(RED)
    assert pixels[1, :, 0, 0].tolist() == [255, 255, 255]
    assert pixels[2, :, 0, 0].tolist() == list(RED)
    assert pixels[3, 0].min() > 200
    assert pixels[3, 1:].max() < 60
    for word in ("EXIF", "white", "CMYK"):
        assert any(word in each for each in manifest.warnings), word


def test_gray_by_majority_and_a_size_by_option(images: Any) -> None:
    files = {"a/1.png": picture(9, (8, 4), "L"), "a/2.png": picture(90, mode="L"), "b/1.png": picture(GRAY)}
    manifest, tensors = images(zipped(files), size=[2, 2])
    assert tensors["pixels"][:, :, 0, 0].tolist() == [[9], [90], [90]]
    assert any("1 of 3 images are coloured" in each for each in manifest.warnings)
    _, coloured = images(zipped({"a/1.png": picture(RED), "b/1.png": picture(RED)}), channels=1)
    assert coloured["pixels"].shape == (2, 1, 3, 4)


def bomb(announced: int) -> bytes:
    """A PNG header that announces a square of this side."""
    content = bytearray(picture(0, mode="L"))
    content[16:24] = struct.pack(">II", announced, announced)
    import zlib

    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def eps() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 3), RED).save(out, "EPS")
    return out.getvalue()


JPEG = picture(RED, (64, 64), format="JPEG")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (eps(), "not_an_image"),
        (b"", "not_an_image"),
        (b"hello", "not_an_image"),
        (bomb(30_000), "too_many_pixels"),
        (bomb(9_000), "too_many_pixels"),
        (JPEG[: len(JPEG) // 2], "bad_image"),
        (picture(RED)[:-30], "bad_image"),
        (picture(RED)[:40], "not_an_image"),
    ],
)
def test_bad_images_are_named(refused: Any, content: bytes, code: str) -> None:
    found = refused(zipped({"a/good.png": picture(RED), "b/bad.png": content}))
    assert found[:2] == (code, "b/bad.png")


def test_every_bad_image_is_listed(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(zipped({f"a/{each}.png": b"no" for each in range(3)}))
    from worker.prepare.report import Refused

    with pytest.raises(Refused) as raised:
        prepare_here(tmp_path / "photos.zip", tmp_path / "out", format="images")
    assert [each.file for each in raised.value.errors] == ["a/0.png", "a/1.png", "a/2.png"]


def with_entry(name: str, content: bytes = b"x", **fields: Any) -> bytes:
    """A zip with one entry whose fields are set by hand."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        entry = zipfile.ZipInfo(name)
        for field, value in fields.items():
            setattr(entry, field, value)
        archive.writestr(entry, content)
    return out.getvalue()


@pytest.mark.parametrize("name", ["../../etc/x.png", "/etc/x.png", "a\\b.png", "C:x.png", "a/../../x.png"])
def test_names_that_leave_the_archive(refused: Any, name: str) -> None:
    content = with_entry("q" * len(name), picture(RED)).replace(b"q" * len(name), name.encode())
    assert refused(content)[0] == "unsafe_name"


def test_archives_that_lie(refused: Any) -> None:
    """A link, a name twice, an encrypted file, a file that inflates beyond what its entry says, a cut archive."""
    assert refused(with_entry("a/x.png", b"/etc/passwd", external_attr=(stat.S_IFLNK | 0o777) << 16))[0] == "not_a_file"
    twice = zipped({"a/x.png": picture(RED), "a/y.png": picture(BLUE)}).replace(b"a/y.png", b"a/x.png")
    assert refused(twice)[0] == "name_twice"
    locked = bytearray(with_entry("a/x.png", picture(RED)))
    locked[locked.index(b"PK\x01\x02") + 8] |= 1
    assert refused(bytes(locked))[0] == "encrypted"
    zeros = zipped({"a/x.png": bytes(50 << 20)}, zipfile.ZIP_DEFLATED)
    assert refused(zeros)[0] == "bomb"
    small = zeros.replace(struct.pack("<I", 50 << 20), struct.pack("<I", 10))
    assert refused(small)[0] in {"unreadable", "bomb", "not_an_image"}
    assert refused(zipped(FOLDERS)[:-30])[0] == "unreadable"
    assert refused(tarred(FOLDERS)[:700])[0] in {"unreadable", "bad_image", "not_an_image"}
    link = io.BytesIO()
    with tarfile.open(fileobj=link, mode="w") as archive:
        entry = tarfile.TarInfo("a/x.png")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(entry)
    assert refused(link.getvalue())[0] == "not_a_file"


def test_layouts_that_are_refused(refused: Any) -> None:
    assert refused(zipped({"1.png": picture(RED), "dogs/2.png": picture(RED)}))[:2] == ("no_class", "1.png")
    assert refused(zipped({"notes.txt": b"x"}))[0] == "no_images"
    mixed = refused(zipped({"a/1.png": picture(RED), "b/1.png": picture(RED, (9, 9))}))
    assert mixed[0] == "mixed_sizes"
    assert "3 x 4 (1)" in mixed[2]
    assert "9 x 9 (1)" in mixed[2]
    assert refused(zipped({"a.png": picture(RED), "labels.csv": b"name,label\na.png,x\n"}))[0] == "no_column"
    assert refused(zipped({"a.png": picture(RED), "labels.csv": b"file,label\nb.png,x\n"}))[0] == "missing_file"
    assert refused(zipped({"a.png": picture(RED), "labels.csv": b"file,label\na.png,\n"}))[0] == "missing_value"
    assert refused(zipped({"a.png": picture(RED), "labels.csv": b"file,label\na.png\n"}))[0] == "ragged_row"
    assert refused(zipped({"a.png": picture(RED), "l.csv": b"", "m.csv": b""}))[0] == "many_tables"


def test_class_names_are_normalised(images: Any) -> None:
    """An e with an accent may be one character or two; macOS writes two."""
    manifest, tensors = images(zipped({"cafe\u0301/1.png": picture(RED), "caf\u00e9/2.png": picture(RED)}))
    assert manifest.classes == ("caf\u00e9",)
    assert tensors["labels"].tolist() == [0, 0]
    assert any("one class only" in each for each in manifest.warnings)
