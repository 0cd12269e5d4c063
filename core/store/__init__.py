"""The object store: whole files under keys that are written once and never again."""

from core.errors import Misconfigured
from core.settings import Settings
from core.store.base import Store


def open_store(settings: Settings) -> Store:
    """The store that the settings name. Nothing is asked of it yet, nor is its client library loaded.

    Raises:
        Misconfigured: its URL is of no kind that this release knows, or what it needs besides is missing.
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
