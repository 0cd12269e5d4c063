"""Receives the body of one request as pieces of an upload."""

import contextlib
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from api.auth import Principal
from api.dependencies import Service
from api.errors import HttpError
from api.resources import entry_of
from api.uploads import DIGESTS, GivenChecksum, read_pieces
from core.db.wait_budget import pause_wait_budget, renew_wait_budget
from core.errors import BasinError
from core.jobs.datasets.pieces import (
    PIECE_BYTES,
    WrongDigest,
    complete_upload,
    record_pieces,
    restart_upload,
    store_piece,
)
from core.jobs.datasets.rows import UploadPiece


@dataclass(slots=True)
class UploadReceiver:
    """Appends the body of one request to an upload; `offset` is where the next byte belongs.

    Each piece is recorded when it is stored, so that an upload continues where a broken connection ended. With a
    `checksum` all of them are recorded at the end, once the whole body has proven right.
    """

    service: Service
    caller: Principal
    dataset_id: str
    offset: int
    checksum: GivenChecksum | None = None
    _held: list[UploadPiece] = field(default_factory=list)
    _digests: dict[str, Any] = field(default_factory=dict)

    async def receive(self, request: Request, most: int) -> None:
        """Read at most `most` bytes.

        Raises:
            OffsetMismatch: another request appended meanwhile.
            TooLarge: the body is longer.
            HttpError: it is too slow (408), or its checksum is another one (460).
        """
        self._digests = {name: DIGESTS[name](usedforsecurity=False) for name in self._wanted_digests()}
        async with (
            self.service.uploads.take_turn(),
            contextlib.aclosing(read_pieces(request, PIECE_BYTES, most)) as pieces,
        ):
            async for content in pieces:
                async with self.service.uploads.store_turn():
                    renew_wait_budget()
                    await run_in_threadpool(self._keep_piece, content)
        if self.checksum is not None:
            await run_in_threadpool(self._record_held, self.checksum)

    def sha256(self) -> str:
        """The digest of what this request has sent."""
        return str(self._digests["sha256"].hexdigest())

    def _wanted_digests(self) -> set[str]:
        return {"sha256"} if self.checksum is None else {"sha256", self.checksum.algorithm}

    def _keep_piece(self, content: bytes) -> None:
        for digest in self._digests.values():
            digest.update(content)
        with pause_wait_budget():
            piece = store_piece(self.service.store, self.dataset_id, self.offset, content)
        if self.checksum is None:
            self._record([piece])
        else:
            self._held.append(piece)
        self.offset += piece.bytes

    def _record_held(self, checksum: GivenChecksum) -> None:
        if self._digests[checksum.algorithm].digest() != checksum.digest:
            self._discard(self._held)
            raise HttpError(460, "checksum_mismatch", "The body has another checksum than Upload-Checksum says.")
        if self._held:
            self._record(self._held)

    def _record(self, pieces: list[UploadPiece]) -> None:
        settings = self.service.settings
        try:
            record_pieces(
                self.service.db,
                self.caller.project,
                self.dataset_id,
                pieces,
                limits=self.caller.limits,
                most_bytes=settings.upload_bytes,
                keep_seconds=settings.keep_uploads_seconds,
            )
        except BasinError as error:
            if error.kind != "unavailable":  # else the row may have been written
                self._discard(pieces)
            raise

    def _discard(self, pieces: list[UploadPiece]) -> None:
        for piece in pieces:
            with contextlib.suppress(BasinError, OSError):  # what stays is swept
                self.service.store.delete(piece.key)


def finish_upload(service: Service, caller: Principal, dataset_id: str, *, at_its_end: bool = False) -> None:
    """Queue the preparation if every byte is there."""
    if complete_upload(service.db, dataset_id, entry_of(caller, service), at_its_end=at_its_end):
        service.hints.send("light")


async def receive_whole(request: Request, receiver: UploadReceiver, announced: int | None, sha256: str | None) -> None:
    """Receive an upload that is one body, from its first byte to its last, and queue the preparation.

    Raises:
        WrongDigest: it is not what was announced; the upload begins again.
    """
    service, caller = receiver.service, receiver.caller
    await receiver.receive(request, service.settings.upload_bytes if announced is None else announced)
    wrong = _difference(receiver, announced, sha256)
    if wrong is not None:
        await run_in_threadpool(restart_upload, service.db, caller.project, receiver.dataset_id)
        raise wrong
    await run_in_threadpool(finish_upload, service, caller, receiver.dataset_id, at_its_end=True)


def _difference(receiver: UploadReceiver, announced: int | None, sha256: str | None) -> WrongDigest | None:
    if receiver.offset == 0:
        return WrongDigest("The body is empty; a dataset has at least one byte.")
    if announced is not None and receiver.offset != announced:
        return WrongDigest(f"{receiver.offset} bytes were sent, and {announced} were announced.")
    if sha256 is not None and receiver.sha256() != sha256:
        return WrongDigest(f"The bytes have the SHA-256 {receiver.sha256()}, and {sha256} was announced.")
    return None
