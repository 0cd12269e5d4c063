"""The address and the credentials of an S3 store, read from the settings; credentials never show in a repr."""

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from core.errors import Misconfigured
from core.settings import Settings

_BUCKET_URL: Final = re.compile(
    r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*))?/?"
)


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket, and the service's folder in it; an empty prefix is the whole bucket."""

    name: str
    prefix: str

    @property
    def key_prefix(self) -> str:
        """The prefix of every object name of the service in the bucket."""
        return f"{self.prefix}/" if self.prefix else ""


@dataclass(frozen=True, slots=True)
class StoreLocation:
    """A bucket at a server. `endpoint` is an http or https URL without a path."""

    bucket: Bucket
    endpoint: str
    region: str
    key_id: str
    secret: str = field(repr=False)
    token: str | None = field(repr=False, default=None)


def bucket_of_url(url: str) -> Bucket | None:
    """The bucket that an s3://bucket/prefix URL names; None for anything else."""
    found = _BUCKET_URL.fullmatch(url)
    return None if found is None else Bucket(found["bucket"], found["prefix"] or "")


def location_of(settings: Settings, bucket: Bucket) -> StoreLocation:
    """The bucket at the server of the settings, with their credentials.

    Raises:
        Misconfigured: there are no credentials, or the server's URL is not valid. Credentials are read from the
            settings alone, not from the files of other tools or a cloud's metadata service.
    """
    if not settings.aws_access_key_id or settings.aws_secret_access_key is None:
        raise Misconfigured("an s3:// store_url needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    region = settings.aws_region
    return StoreLocation(
        bucket=bucket,
        endpoint=check_endpoint(settings.s3_endpoint or f"https://s3.{region}.amazonaws.com"),
        region=region,
        key_id=settings.aws_access_key_id,
        secret=settings.aws_secret_access_key.get_secret_value(),
        token=settings.aws_session_token.get_secret_value() if settings.aws_session_token else None,
    )


def check_endpoint(endpoint: str) -> str:
    """The address of a server, without a path. Raises Misconfigured for anything else."""
    parts = urlsplit(endpoint)
    plain = parts.scheme in {"http", "https"} and parts.hostname and parts.path in {"", "/"}
    if not plain or parts.query or parts.fragment or "@" in parts.netloc:
        raise Misconfigured("s3_endpoint must be http://host:port or https://host, without a path")
    return f"{parts.scheme}://{parts.netloc}"
