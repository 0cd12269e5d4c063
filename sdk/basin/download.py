"""Downloads: verified, resumed after a broken connection, and written whole or not at all."""

import hashlib
import os
import secrets
import time
from pathlib import Path
from typing import IO

import httpx2

from basin.errors import DigestMismatch, Unreachable
from basin.transport import AGAIN, TRIES, Transport, describe_error, raise_for_problem, retry_delay

BLOCK = 1 << 20


def download_file(transport: Transport, source: str, target: Path, *, sha256: str | None) -> Path:
    """Writes the body of GET `source` to `target`, whole and verified, or not at all.

    Raises DigestMismatch when the SHA-256 of the body is not `sha256`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("x+b") as file:
            receive_body(transport, source, file)
            found = file_sha256(file)
            if sha256 is not None and found != sha256:
                raise DigestMismatch(
                    f"the downloaded weights have SHA-256 {found}, recorded is {sha256}; nothing was written"
                )
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def receive_body(transport: Transport, source: str, file: IO[bytes]) -> None:
    """Streams into `file`; after a broken connection, requests the rest.

    The service may redirect to the store that holds the weights. The API key is not sent there: httpx2 drops it when
    the origin changes. Every try begins at the service, because its redirects are valid for minutes only.
    """
    etag = ""
    for tried in range(TRIES):
        rest = {"Range": f"bytes={file.tell()}-", "If-Range": etag} if etag and file.tell() else {}
        headers = rest | {"Accept": "*/*", "Accept-Encoding": "identity"}
        answer: httpx2.Response | None = None
        try:
            with transport.http.stream("GET", source, headers=headers, follow_redirects=True) as answer:
                if answer.status_code not in AGAIN or tried == TRIES - 1:
                    write_body(answer, file)
                    return
        except httpx2.TransportError as error:
            if tried == TRIES - 1:
                raise Unreachable(unreachable_host(error, transport.url), describe_error(error)) from error
            if answer is not None:
                etag = answer.headers.get("ETag", "")
        time.sleep(retry_delay(tried, answer))


def write_body(answer: httpx2.Response, file: IO[bytes]) -> None:
    """Writes an answer's body: a partial one (206) at the file's position, any other from the start."""
    if answer.status_code >= 400:
        answer.read()
    raise_for_problem(answer)
    if answer.status_code != httpx2.codes.PARTIAL_CONTENT:
        file.seek(0)
        file.truncate()
    for block in answer.iter_bytes(BLOCK):
        file.write(block)


def unreachable_host(error: httpx2.TransportError, otherwise: str) -> str:
    """The host that did not answer: after a redirect, that of the store."""
    try:
        url = error.request.url
    except RuntimeError:  # the error has no request
        return otherwise
    return f"{url.scheme}://{url.netloc.decode()}"


def file_sha256(file: IO[bytes]) -> str:
    """The SHA-256 of the whole file, as hex digits."""
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
