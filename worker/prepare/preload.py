"""Everything that a parser would load at its first use: an isolated process opens no file of Python or a library."""

import codecs
import faulthandler
import sys
import warnings
from importlib import import_module
from importlib.abc import MetaPathFinder
from typing import Final

from worker.prepare.formats import READERS

CODECS: Final = (
    *("utf-8", "utf-8-sig", "ascii", "latin-1", "cp1252", "cp437", "utf-16", "utf-16-le", "utf-16-be", "utf-32"),
    *("unicode_escape", "raw_unicode_escape"),
)
"""cp437 is what zip files have their names in; pyarrow decodes by way of Python's codecs too."""
MODULES: Final = (
    *("bz2", "calendar", "csv", "gzip", "lzma", "mmap", "random", "tarfile", "tempfile", "traceback", "zipfile"),
    *("_strptime", "numpy", "numpy.lib.format", "numpy.ma", "numpy.random", "zoneinfo", "stringprep"),
    *("pyarrow", "pyarrow.compute", "pyarrow.csv", "pyarrow.json", "pyarrow.parquet"),
    *("PIL.Image", "PIL.ImageFile", "PIL.ImageOps", "PIL.ImageSequence", "PIL.ImageMode", "PIL.ImagePalette"),
    *("tokenizers", "tokenizers.decoders", "tokenizers.models", "tokenizers.pre_tokenizers", "tokenizers.trainers"),
)
NOT_LOADED: Final = ("pandas", "dateutil", "pytz")
"""pyarrow looks for them at the first use, where they are installed, and takes only an ImportError for an answer."""


class NotInstalled(MetaPathFinder):
    """Lets the modules of NOT_LOADED look as if they were not installed."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname.partition(".")[0] in NOT_LOADED:
            raise ModuleNotFoundError(f"{fullname} is not loaded here", name=fullname)


def preload_parsers() -> None:
    """Load the modules of all parsers and what they load lazily. Starts no thread in the launcher's environment."""
    sys.meta_path.insert(0, NotInstalled())
    for codec in CODECS:
        codecs.lookup(codec)
    for module in (*MODULES, *(reader.partition(":")[0] for reader in READERS.values())):
        import_module(module)
    import pyarrow as pa
    from PIL import Image

    Image.init()
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    faulthandler.enable()
    with warnings.catch_warnings():  # `warnings` itself loads what shows one
        warnings.simplefilter("ignore")
        warnings.warn("preloaded", stacklevel=1)
