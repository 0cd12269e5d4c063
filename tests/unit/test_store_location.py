"""Which S3 server and bucket the settings mean, and what cannot be meant."""

import os

import pytest

from core.errors import Misconfigured
from core.settings import Settings
from core.store import open_store
from core.store.location import Bucket, bucket_of_url
from core.store.s3 import S3Store


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("BASIN_", "AWS_")):
            monkeypatch.delenv(name)


def settings(**values: str) -> Settings:
    keys = {"aws_access_key_id": "id", "aws_secret_access_key": "c4n4ry"}
    return Settings.model_validate(keys | {"store_url": "s3://bucket-1/a/b"} | values)


def test_the_settings_choose_bucket_and_server(monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(settings())
    assert isinstance(store, S3Store)
    place = store._place
    assert place.bucket == Bucket("bucket-1", "a/b")
    assert (place.endpoint, place.region) == ("https://s3.us-east-1.amazonaws.com", "us-east-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-3")
    monkeypatch.setenv("BASIN_S3_ENDPOINT", "http://store:8333/")
    there = open_store(settings(store_url="s3://bucket-1"))
    assert isinstance(there, S3Store)
    assert (there._place.endpoint, there._place.region) == ("http://store:8333", "eu-west-3")
    assert there._place.bucket == Bucket("bucket-1", "")
    assert there._place.bucket.key_prefix == ""


@pytest.mark.parametrize(
    "values",
    [
        {"store_url": "s3://"},
        {"store_url": "s3://Bucket"},
        {"store_url": "s3://bucket/../x"},
        {"store_url": "s3://c4n4ry@bucket/x"},
        {"store_url": "s3://bucket/x?c4n4ry"},
        {"s3_endpoint": "store:8333"},
        {"s3_endpoint": "ftp://store"},
        {"s3_endpoint": "http://id:c4n4ry@store"},
        {"s3_endpoint": "https://store/path"},
        {"aws_access_key_id": ""},
    ],
)
def test_settings_that_cannot_be_meant(values: dict[str, str]) -> None:
    with pytest.raises(Misconfigured) as refused:
        open_store(settings(**values))
    assert "c4n4ry" not in str(refused.value)


def test_no_credentials_are_looked_for_elsewhere() -> None:
    """Not in other tools' files, not at a cloud's metadata service: that would be somebody else's identity."""
    with pytest.raises(Misconfigured, match="AWS_ACCESS_KEY_ID"):
        open_store(Settings.model_validate({"store_url": "s3://bucket"}))
    assert bucket_of_url("gs://bucket") is None
