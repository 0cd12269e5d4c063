"""The object store: whole files under keys that are written once and never again."""

from core.errors import Misconfigured
from core.settings import Settings
from core.store.base import Store


def open_store(settings: Settings) -> Store:
    """The store that the settings name.

    Raises:
        Misconfigured: its URL is of no kind that this release knows.
    """
    from core.store.local import LocalStore, folder_of_url

    folder = folder_of_url(settings.resolved_store_url())
    if folder is None:
        raise Misconfigured("store_url must be a file:///folder URL or an absolute path")
    return LocalStore(folder)
