"""Requests that we sign ourselves: the signature is Amazon's, and only what is old and ours is aborted."""

from datetime import UTC, datetime

import pytest

from core.store import multipart
from core.store.location import Bucket, StoreLocation
from core.store.multipart import MultipartUpload, signed_headers


def test_signatures_are_those_of_amazons_own_examples() -> None:
    """From "Examples: Signature Calculations in AWS Signature Version 4": GET Bucket (List Objects), GET lifecycle."""
    secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"  # noqa: S105 - Amazon's example
    place = StoreLocation(
        Bucket("examplebucket", ""),
        "https://examplebucket.s3.amazonaws.com",
        "us-east-1",
        "AKIAIOSFODNN7EXAMPLE",
        secret,
    )
    for query, signature in (
        ({"prefix": "J", "max-keys": "2"}, "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
        ({"lifecycle": ""}, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
    ):
        headers = signed_headers(place, "GET", "/", query, datetime(2013, 5, 24, tzinfo=UTC))
        assert headers["Authorization"] == (
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
            f"SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature={signature}"
        )


PAGE = """<?xml version="1.0" encoding="UTF-8"?>
<ListMultipartUploadsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
  <IsTruncated>true</IsTruncated><NextKeyMarker>ours/b</NextKeyMarker><NextUploadIdMarker>2</NextUploadIdMarker>
  <Upload><Key>ours/a</Key><UploadId>1</UploadId><Initiated>2001-09-09T01:46:40.000Z</Initiated></Upload>
  <Upload><Key>ours/b</Key><UploadId>2</UploadId><Initiated>2001-09-09T01:46:41.000Z</Initiated></Upload>
</ListMultipartUploadsResult>"""


def test_only_old_uploads_of_ours_are_aborted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second page is asked for; one upload is young, one lies beside our folder."""
    assert multipart.parse_uploads(PAGE.encode()) == (
        [
            MultipartUpload("ours/a", "1", 1e9),
            MultipartUpload("ours/b", "2", 1e9 + 1),
        ],  # 2001-09-09T01:46:40Z is 10^9 by POSIX
        {"key-marker": "ours/b", "upload-id-marker": "2"},
    )
    last = PAGE.replace(">true<", ">false<").replace("ours/a", "theirs/a").replace("ours/b", "ours/c")
    asked: list[tuple[str, str, dict[str, str]]] = []

    def ask(_place: StoreLocation, method: str, name: str, query: dict[str, str]) -> bytes:
        asked.append((method, name, query))
        return (last if "key-marker" in query else PAGE).encode()

    monkeypatch.setattr(multipart, "_send_request", ask)
    place = StoreLocation(Bucket("bucket", "ours"), "http://127.0.0.1:1", "us-east-1", "id", "secret")
    assert multipart.abort_uploads(place, before=1e9 + 1) == 1
    assert [one for one in asked if one[0] == "DELETE"] == [("DELETE", "ours/a", {"uploadId": "1"})]
