"""Lists and aborts incomplete multipart uploads: two S3 requests that the client library does not offer.

Such uploads are not in listings, yet they use space without end. Requests are signed with AWS Signature Version 4.
"""

import hashlib
import hmac
import logging
import urllib.error
import urllib.request
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Final
from urllib.parse import quote, urlsplit

from core.store.location import StoreLocation

log = logging.getLogger(__name__)

_SECONDS: Final = 10.0
_MOST_BYTES: Final = 16 << 20
_NO_BODY: Final = hashlib.sha256().hexdigest()


@dataclass(frozen=True, slots=True)
class MultipartUpload:
    """An upload that began at `began_at` (unix seconds). `name` is the object's name in the bucket, with our prefix."""

    name: str
    id: str
    began_at: float


def abort_uploads(place: StoreLocation, before: float) -> int:
    """Abort uploads that began before that time (unix seconds); return how many. A failure is logged, not raised."""
    try:
        old = [upload for upload in _list_uploads(place) if upload.began_at < before]
        return sum(_abort_upload(place, upload) for upload in old)
    except (OSError, HTTPException, ET.ParseError, ValueError) as error:
        log.warning("unfinished uploads stay in the object store: %s", _error_reason(error))
        return 0


def _abort_upload(place: StoreLocation, upload: MultipartUpload) -> bool:
    """Whether the upload was aborted; False where it had been completed or aborted meanwhile."""
    try:
        _send_request(place, "DELETE", upload.name, {"uploadId": upload.id})
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return False
        raise
    return True


def _list_uploads(place: StoreLocation) -> Iterator[MultipartUpload]:
    more: Mapping[str, str] | None = {}
    while more is not None:
        asked = {"uploads": "", "prefix": place.bucket.key_prefix, **more}
        uploads, more = parse_uploads(_send_request(place, "GET", "", asked))
        yield from (upload for upload in uploads if upload.name.startswith(place.bucket.key_prefix))


def parse_uploads(answer: bytes) -> tuple[list[MultipartUpload], Mapping[str, str] | None]:
    """The uploads of one page, and the query parameters of the next page; None where it is the last one."""
    root = ET.fromstring(answer)  # noqa: S314 - from the operator's own server, and of bounded size
    uploads = [
        MultipartUpload(
            one.findtext("{*}Key", ""),
            one.findtext("{*}UploadId", ""),
            datetime.fromisoformat(one.findtext("{*}Initiated", "")).timestamp(),
        )
        for one in root.findall("{*}Upload")
    ]
    if root.findtext("{*}IsTruncated", "") != "true" or not uploads:
        return uploads, None
    markers = {
        "key-marker": root.findtext("{*}NextKeyMarker", ""),
        "upload-id-marker": root.findtext("{*}NextUploadIdMarker", ""),
    }
    return uploads, markers


def _send_request(place: StoreLocation, method: str, name: str, query: Mapping[str, str]) -> bytes:
    path = quote(f"/{place.bucket.name}" + (f"/{name}" if name else ""))
    headers = signed_headers(place, method, path, query, datetime.now(UTC))
    url = f"{place.endpoint}{path}?{_canonical_query(query)}"
    request = urllib.request.Request(url, method=method, headers=headers)  # noqa: S310 - location.py accepts http(s) only
    with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310 - as above
        content: bytes = answer.read(_MOST_BYTES)
    return content


def signed_headers(
    place: StoreLocation, method: str, path: str, query: Mapping[str, str], at: datetime
) -> dict[str, str]:
    """The headers of a request without a body, including its signature; `path` is quoted already."""
    stamp = at.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{stamp[:8]}/{place.region}/s3/aws4_request"
    signed = {"host": urlsplit(place.endpoint).netloc, "x-amz-content-sha256": _NO_BODY, "x-amz-date": stamp}
    if place.token is not None:
        signed["x-amz-security-token"] = place.token
    names = ";".join(sorted(signed))
    lines = [f"{name}:{signed[name]}" for name in sorted(signed)]
    request = "\n".join([method, path, _canonical_query(query), *lines, "", names, _NO_BODY])
    to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = f"AWS4{place.secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    credential = f"Credential={place.key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**signed, "Authorization": f"AWS4-HMAC-SHA256 {credential}"}


def _canonical_query(query: Mapping[str, str]) -> str:
    return "&".join(f"{quote(name, safe='')}={quote(query[name], safe='')}" for name in sorted(query))


def _error_reason(error: Exception) -> str:
    """The reason without the address, which does not belong in a log."""
    if isinstance(error, urllib.error.HTTPError):
        return f"status {error.code}"
    return type(error).__name__
