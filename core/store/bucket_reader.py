"""Reads the objects of a bucket that is not the service's own: any key, nothing is written."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from core.store.base import StoreMissing
from core.store.location import StoreLocation
from core.store.s3_client import TUNING, make_client
from core.store.s3_errors import translate_error

if TYPE_CHECKING:
    from obstore.store import S3Store as Client

PIECE_BYTES: Final = 8 << 20
T = TypeVar("T")


class BucketReader:
    """Methods raise StoreMissing, StoreRefused or StoreTransient."""

    def __init__(self, place: StoreLocation) -> None:
        """The folder of `place` is not part of the client's addresses: keys are those of the bucket."""
        self._client: Client = make_client(place, TUNING, prefix=None)

    def size_of(self, key: str) -> int:
        """The bytes of one object."""
        import obstore

        return self._call(key, lambda: obstore.head(self._client, key))["size"]

    def list_folder(self, folder: str) -> list[tuple[str, int]]:
        """(key, bytes) of every object whose key begins with `folder`, which ends with a slash; sorted by key."""
        import obstore

        def collect() -> list[tuple[str, int]]:
            pages = obstore.list(self._client, folder)
            return [(found["path"], found["size"]) for page in pages for found in page]

        return sorted(self._call(folder, collect))

    def read_object(self, key: str, size: int) -> Iterator[bytes]:
        """Its bytes in pieces of at most PIECE_BYTES."""
        import obstore

        def read(start: int) -> bytes:
            return bytes(obstore.get_range(self._client, key, start=start, end=min(start + PIECE_BYTES, size)))

        for start in range(0, size, PIECE_BYTES):
            yield self._call(key, partial(read, start))

    def _call(self, key: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except FileNotFoundError as error:
            raise StoreMissing(f"The bucket has no {key}.") from error
        except Exception as error:
            raise translate_error(error, key, writing=False) from error
