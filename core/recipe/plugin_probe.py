"""Imports the spec modules of a plug-in in a fresh interpreter, to see whether they bring torch or NumPy with them.

python -m core.recipe.plugin_probe MODULE ...      prints why the modules are refused, as JSON; null: they are not
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Final

from core.process import without_secrets

HEAVY: Final = ("torch", "numpy")
PROBE_SECONDS: Final = 60.0


def probe_modules(modules: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Distribution -> why it is refused, of those that are; each is tried in a process of its own."""
    with ThreadPoolExecutor(max_workers=4, thread_name_prefix="plugin-probe") as pool:
        reasons = dict(zip(modules, pool.map(_probe_process, modules.values()), strict=True))
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _probe_process(modules: Sequence[str]) -> str | None:
    """Without our credentials, and with the folders that this process imports from."""
    environment = without_secrets(os.environ) | {"PYTHONPATH": os.pathsep.join(each or "." for each in sys.path)}
    try:
        answer = subprocess.run(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "core.recipe.plugin_probe", *modules],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"to import it takes more than {PROBE_SECONDS:g} s"
    last = answer.stdout.strip().splitlines()[-1:]
    if answer.returncode != 0 or not last:
        return f"a process that imports it ends with status {answer.returncode}"
    reason: str | None = json.loads(last[0])
    return reason


def find_heavy_import(modules: Sequence[str]) -> str | None:
    """Import the modules here, and say what is wrong with them."""
    for module in modules:
        try:
            import_module(module)
        except Exception as error:  # noqa: BLE001 - the answer is what went wrong
            return f"it cannot be imported: {type(error).__name__}: {error}"
        if found := [name for name in HEAVY if name in sys.modules]:
            return f"{module} imports {' and '.join(found)}; a spec names its builder by an import string instead"
    return None


if __name__ == "__main__":
    sys.stdout.write(f"{json.dumps(find_heavy_import(sys.argv[1:]))}\n")
