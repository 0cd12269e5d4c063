"""The object store: immutable objects, each written once under a key that is never reused."""

from core.errors import Misconfigured
from core.settings import Settings
from core.store.base import Store


def open_store(settings: Settings) -> Store:
    """The store that the settings name. No request is made, and its client library is not loaded yet.

    Raises:
        Misconfigured: the URL's scheme is not supported, or the credentials that it needs are missing.
    """
    from core.store.local import LocalStore, folder_of_url
    from core.store.location import bucket_of_url, location_of
    from core.store.s3 import S3Store

    url = settings.resolved_store_url()
    folder = folder_of_url(url)
    if folder is not None:
        return LocalStore(folder)
    bucket = bucket_of_url(url)
    if bucket is None:
        raise Misconfigured("store_url must be a file:///folder URL, an absolute path, or s3://bucket/prefix")
    return S3Store(location_of(settings, bucket))
