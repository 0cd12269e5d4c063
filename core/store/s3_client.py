"""Clients of buckets, and how patient they are."""

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from core.store.location import StoreLocation

if TYPE_CHECKING:
    from obstore.store import S3Store as Client

_INNER_SECONDS: Final = timedelta(seconds=10)
_CONNECT: Final = timedelta(seconds=3)
REQUEST: Final = timedelta(seconds=60)  # for 8 MiB


@dataclass(frozen=True, slots=True)
class S3Tuning:
    """Sizes of requests, and the number of tries.

    Within each call, obstore retries a request after 5xx and broken connections, with exponential backoff and jitter:
    `inner_tries` times, pausing `first_pause` to `last_pause`. Whole calls are tried `tries` times, because obstore
    does not retry a request that the server may have carried out without an answer.
    """

    whole_bytes: int = 16 << 20  # a file up to this size is one request, and is held in memory
    part_bytes: int = 8 << 20
    page_keys: int = 1_000
    inner_tries: int = 4
    first_pause: timedelta = timedelta(milliseconds=100)
    last_pause: timedelta = timedelta(seconds=2)
    tries: int = 4
    pause_seconds: float = 0.1


TUNING: Final = S3Tuning()


def make_client(
    place: StoreLocation,
    tuning: S3Tuning,
    *,
    prefix: str | None,
    tries: int | None = None,
    request: timedelta = REQUEST,
) -> "Client":
    """A client of the bucket whose keys begin below `prefix`; `tries` and `request` (a timeout) are of each request."""
    from obstore.store import S3Store as ObstoreS3

    return ObstoreS3(
        place.bucket.name,
        prefix=prefix,
        config={
            # Both, or AWS_ENDPOINT_URL_S3 in the environment would override our settings.
            "endpoint": place.endpoint,
            "aws_endpoint_url_s3": place.endpoint,
            "region": place.region,
            "access_key_id": place.key_id,
            "secret_access_key": place.secret,
            **({"session_token": place.token} if place.token else {}),
            "disable_bulk_delete": True,  # more servers support plain DELETE
        },
        client_options={
            "allow_http": place.endpoint.startswith("http:"),
            "connect_timeout": min(_CONNECT, request),
            "timeout": request,
        },
        retry_config={
            "max_retries": tuning.inner_tries if tries is None else tries,
            "retry_timeout": _INNER_SECONDS,
            "backoff": {"init_backoff": tuning.first_pause, "max_backoff": tuning.last_pause, "base": 2},
        },
    )
