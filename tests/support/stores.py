"""Stores that go away in each way that a folder or a bucket can, and come back as they were."""

import contextlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from core.db.session import Database
from core.jobs.store_identity import IdentifiedStore
from core.store.base import Store
from core.store.local import LocalStore
from core.store.location import Bucket, StoreLocation
from core.store.s3 import S3Store


class Losable(Protocol):
    """A place of objects that can be lost: `plain` is the store there, `lost` takes it away for a while."""

    plain: Store

    def lost(self) -> contextlib.AbstractContextManager[None]: ...


class LosableFolder:
    """A folder; `way` says how it goes away."""

    def __init__(self, root: Path, way: str) -> None:
        self.root = root
        self.plain: Store = LocalStore(root)
        self._way = way

    @contextlib.contextmanager
    def lost(self) -> Iterator[None]:
        aside = self.root.with_name("aside")
        self.root.rename(aside)
        if self._way == "emptied":
            self.root.mkdir()
        if self._way == "a file":
            self.root.write_bytes(b"")
        try:
            yield
            assert not self.root.is_dir() or list(self.root.iterdir()) == []  # nothing was written there
        finally:
            if self._way == "emptied":
                self.root.rmdir()
            if self._way == "a file":
                self.root.unlink()
            aside.rename(self.root)


class LosableBucket:
    """A folder of a bucket, which is emptied, or whose settings name another one."""

    def __init__(self, place: StoreLocation, way: str, aside: Path) -> None:
        self.plain: Store = S3Store(place)
        self._place, self._way, self._aside = place, way, aside

    @contextlib.contextmanager
    def lost(self) -> Iterator[None]:
        if self._way == "another":
            other = replace(self._place, bucket=Bucket(self._place.bucket.name, f"other-{secrets.token_hex(6)}"))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(self.plain, "_place", other)
                patch.setattr(self.plain, "_client", None)
                yield
                assert list(self.plain.list("")) == []
            return
        kept = [stored.key for stored in self.plain.list("")]
        for number, key in enumerate(kept):
            self.plain.fetch(key, self._aside / f"{number}")
            self.plain.delete(key)
        yield
        assert list(self.plain.list("")) == []
        for number, key in enumerate(kept):
            self.plain.put_file(self._aside / f"{number}", key)


WAYS = ["folder moved", "folder emptied", "folder a file", "bucket emptied", "bucket another"]


@pytest.fixture(params=WAYS)
def losable(request: pytest.FixtureRequest, tmp_path: Path) -> Losable:
    """A place that can be lost, once for each way."""
    kind, _, way = str(request.param).partition(" ")
    if kind == "folder":
        return LosableFolder(tmp_path / "store", way)
    aside = tmp_path / "bucket"
    aside.mkdir()
    return LosableBucket(request.getfixturevalue("bucket"), way, aside)


@pytest.fixture
def identified(db: Database) -> Callable[[Store], IdentifiedStore]:
    """The store as the service opens it."""
    return lambda plain: IdentifiedStore(plain, db, where="somewhere")
