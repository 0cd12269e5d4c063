"""Writes datasets in a process of its own that dies with its worker.

`python -m worker.materialise_datasets PARENT FOLDER DATASET …`

Exit status IMPOSSIBLE and one line on stdout mean that the dataset cannot exist; every other failure is a failure
of this machine.
"""

import sys
import traceback
from pathlib import Path
from typing import Final

from core.process import die_with_parent
from core.recipe.data.materialise import materialise_dataset, read_data

IMPOSSIBLE: Final = 65


def main(parent: int, folder: Path, datasets: list[str]) -> int:
    """The exit status; a traceback goes to stderr."""
    die_with_parent(parent)
    for wanted in datasets:
        try:
            materialise_dataset(read_data(wanted), folder)
        except ValueError as error:
            traceback.print_exc()
            sys.stdout.write(str(error))
            return IMPOSSIBLE
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))
