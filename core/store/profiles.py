"""Buckets that an operator names as sources of datasets: BASIN_S3_PROFILES. The service only reads them."""

import json
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError

from core.errors import FieldProblem, InvalidSpec, Misconfigured
from core.settings import Settings
from core.store.location import Bucket, StoreLocation, bucket_of_url, check_endpoint
from core.suggest import did_you_mean

SETTING: Final = "BASIN_S3_PROFILES"


class S3Profile(BaseModel):
    """One entry of the setting: a bucket, or a folder in it, and the credentials to read it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    url: str
    access_key_id: str
    secret_access_key: SecretStr
    session_token: SecretStr | None = None
    endpoint: str | None = None
    region: str = "us-east-1"

    def location(self) -> StoreLocation:
        """Raises Misconfigured where an address is not valid."""
        bucket = bucket_of_url(self.url)
        if bucket is None:
            raise Misconfigured(f"{SETTING}: url must be s3://bucket or s3://bucket/folder")
        return StoreLocation(
            bucket=bucket,
            endpoint=check_endpoint(self.endpoint or f"https://s3.{self.region}.amazonaws.com"),
            region=self.region,
            key_id=self.access_key_id,
            secret=self.secret_access_key.get_secret_value(),
            token=self.session_token.get_secret_value() if self.session_token else None,
        )


_ENTRIES: Final = TypeAdapter(dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")], S3Profile])


def read_profiles(settings: Settings) -> Mapping[str, StoreLocation]:
    """The profiles by name.

    Raises:
        Misconfigured: the setting is not a JSON object of profiles. The message does not quote it.
    """
    if settings.s3_profiles is None:
        return {}
    try:
        entries = _ENTRIES.validate_python(json.loads(settings.s3_profiles.get_secret_value()), strict=False)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise Misconfigured(f"{SETTING}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except ValueError:
        raise Misconfigured(f"{SETTING} is not JSON") from None
    return {name: entry.location() for name, entry in entries.items()}


def find_s3_source(profiles: Mapping[str, StoreLocation], profile: str, url: str) -> tuple[StoreLocation, str]:
    """(where to read, the key of an object or of a folder, which ends with a slash) for a source of kind `s3`.

    Raises:
        InvalidSpec: there is no such profile, or the URL is not below its own.
    """
    place = profiles.get(profile)
    if place is None:
        message = "there is no such profile" if profiles else "this service takes no datasets from S3"
        hint = did_you_mean(profile, profiles) if profiles else f"its operator can set {SETTING}"
        raise InvalidSpec(errors=(FieldProblem("/source/profile", message, hint),))
    start = f"s3://{place.bucket.name}/"
    key = url.removeprefix(start)
    if not url.startswith(start) or not is_below(key, place.bucket):
        above = f"{start}{place.bucket.key_prefix}"
        raise InvalidSpec(
            errors=(FieldProblem("/source/url", f"the profile {profile} has only what is below {above}"),)
        )
    return place, key


def is_below(key: str, bucket: Bucket) -> bool:
    """Whether a key is inside the bucket's folder, without empty parts and without dots that lead out of it."""
    parts = key.rstrip("/").split("/")
    return key.startswith(bucket.key_prefix) and key != bucket.key_prefix and not {"", ".", ".."} & set(parts)
