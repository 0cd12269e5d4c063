"""Datasets by reference from a bucket of the operator: a real S3 server, keys that are not the service's."""

import hashlib
import json
import os
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.errors import InvalidSpec, Misconfigured
from core.redact import redact_secrets, register_secrets
from core.settings import Settings
from core.store.location import Bucket, StoreLocation
from core.store.profiles import find_s3_source, read_profiles
from core.store.s3_client import TUNING, make_client
from tests.service.test_upload_sources import ROW
from worker.datasets.s3_source import copy_s3_source
from worker.datasets.source import SourceGone

CONTENT = b"a,b\n" + b"1,2\n" * 3_000_000  # more than one piece
FILES = {"dogs/1 (copy).png": b"one", "cats/2.png": b"two", ".hidden/3.png": b"three", "cats/": b""}


def nothing() -> None:
    """Nothing interrupts."""


@pytest.fixture
def lake(bucket: StoreLocation) -> StoreLocation:
    """A folder of a bucket with a file and a folder of files, and a file beside that folder."""
    import obstore

    client = make_client(bucket, TUNING, prefix=None)
    home = bucket.bucket.key_prefix
    obstore.put(client, f"{home}train.csv", CONTENT)
    obstore.put(client, f"{home.rstrip('/')}-secret/x.csv", b"not below")
    for name, content in FILES.items():
        if not name.endswith("/"):
            obstore.put(client, f"{home}photos/{name}", content)
    return bucket


def settings_of(place: StoreLocation, home: Path) -> Settings:
    entry = {
        "url": f"s3://{place.bucket.name}/{place.bucket.prefix}",
        "endpoint": place.endpoint,
        "access_key_id": place.key_id,
        "secret_access_key": place.secret,
    }
    return Settings(home=home, s3_profiles=json.dumps({"lake": entry}))


def source(place: StoreLocation, key: str, profile: str = "lake") -> dict[str, Any]:
    return {"kind": "s3", "profile": profile, "url": f"s3://{place.bucket.name}/{place.bucket.key_prefix}{key}"}


def copied(place: StoreLocation, home: Path, key: str) -> Any:
    row = replace(ROW, source=source(place, key), sha256=None)
    return os.fdopen(copy_s3_source(row, settings_of(place, home), home, nothing), "rb")


def test_an_object_is_copied_whole(lake: StoreLocation, tmp_path: Path) -> None:
    with copied(lake, tmp_path, "train.csv") as file:
        assert hashlib.file_digest(file, "sha256").digest() == hashlib.sha256(CONTENT).digest()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_becomes_a_tar(lake: StoreLocation, tmp_path: Path) -> None:
    """Sorted, without hidden files; the names of the bucket need not be keys of the service."""
    with copied(lake, tmp_path, "photos/") as file, tarfile.open(fileobj=file) as archive:
        found = {each.name: archive.extractfile(each) for each in archive}
        assert {name: content.read() for name, content in found.items() if content} == {
            "cats/2.png": b"two",
            "dogs/1 (copy).png": b"one",
        }
        assert list(found) == ["cats/2.png", "dogs/1 (copy).png"]


@pytest.mark.parametrize("key", ["none.csv", "empty/"])
def test_what_is_not_there_is_named(lake: StoreLocation, tmp_path: Path, key: str) -> None:
    with pytest.raises(SourceGone, match=r"has no|no object"):
        copied(lake, tmp_path, key)


@pytest.mark.parametrize("key", ["../x.csv", "a/../../x.csv", "a//b.csv", ""])
def test_a_url_that_leaves_the_profile_is_refused(bucket: StoreLocation, tmp_path: Path, key: str) -> None:
    given = source(bucket, key)
    with pytest.raises(InvalidSpec) as refused:
        find_s3_source(read_profiles(settings_of(bucket, tmp_path)), given["profile"], given["url"])
    assert refused.value.errors[0].pointer == "/source/url"


def test_neighbours_and_other_buckets_are_refused(bucket: StoreLocation, tmp_path: Path) -> None:
    """A folder whose name begins with that of the profile is another folder."""
    profiles = read_profiles(settings_of(bucket, tmp_path))
    for url in (f"s3://{bucket.bucket.name}/{bucket.bucket.prefix}-secret/x.csv", "s3://other/x.csv"):
        with pytest.raises(InvalidSpec) as refused:
            find_s3_source(profiles, "lake", url)
        assert "has only what is below" in refused.value.errors[0].message
    with pytest.raises(InvalidSpec) as refused:
        find_s3_source(profiles, "lakes", source(bucket, "train.csv")["url"])
    assert (refused.value.errors[0].pointer, refused.value.errors[0].hint) == (
        "/source/profile",
        'did you mean "lake"?',
    )


@pytest.mark.parametrize(
    "written", ["nonsense-s3cr3t", '{"lake": {"url": "s3://b"}}', '{"lake": []}', '{"La ke": {}}', "[]"]
)
def test_a_setting_that_cannot_be_read_is_not_quoted(tmp_path: Path, written: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        read_profiles(Settings(home=tmp_path, s3_profiles=written))
    assert "BASIN_S3_PROFILES" in refused.value.message
    assert "s3cr3t" not in refused.value.message


def test_its_secrets_are_removed_from_texts(tmp_path: Path) -> None:
    place = StoreLocation(Bucket("lake", ""), "http://127.0.0.1:1", "eu", "key", "a-l0ng-s3cr3t-of-the-lake")
    register_secrets(settings_of(place, tmp_path))
    assert redact_secrets("failed with a-l0ng-s3cr3t-of-the-lake") == "failed with ***"
