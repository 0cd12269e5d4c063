"""What a look at one part found, and looks that come back in time whatever is away."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from core.redact import redact

PATIENCE_SECONDS: Final = 5.0
SPARE_BYTES: Final = 1 << 30  # less free space than this is worth a warning
LEAST_BYTES: Final = 100 << 20


class Verdict(StrEnum):
    """From good to bad."""

    OK = "ok"
    WARNING = "warning"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: what was found, and what to do where that is not as it should be."""

    name: str
    verdict: Verdict
    found: str
    do: str | None = None


def ok(name: str, found: str) -> Check:
    return Check(name, Verdict.OK, found)


def warning(name: str, found: str, do: str) -> Check:
    """The service works all the same, or will once it has been started."""
    return Check(name, Verdict.WARNING, found, do)


def fail(name: str, found: str, do: str) -> Check:
    """The service does not work like this."""
    return Check(name, Verdict.FAIL, found, do)


def worst(checks: Sequence[Check]) -> Verdict:
    """The verdict on all of them together."""
    order = list(Verdict)
    return max((check.verdict for check in checks), key=order.index, default=Verdict.OK)


def said(error: BaseException) -> str:
    """The first line of an error, of the driver's own where SQLAlchemy has wrapped it."""
    inner = getattr(error, "orig", None) or error
    lines = str(inner).strip().splitlines()
    return redact(lines[0] if lines else type(inner).__name__)


def space(name: str, free: int) -> Check:
    """Whether so many bytes of free space will do."""
    text = f"{free / 1e9:.1f} GB free"
    do = "make room: checkpoints, the database and logs grow"
    if free < LEAST_BYTES:
        return fail(name, text, do)
    return warning(name, text, do) if free < SPARE_BYTES else ok(name, text)


@dataclass(frozen=True, slots=True)
class Look:
    """A part to look at. `do` is the advice where it fails in a way that it does not foresee, or does not answer.

    Where it fails like that, a look `between` two parts says nothing: the looks at each of them do.
    """

    name: str
    at: Callable[[], Iterator[Check]]
    do: str
    seconds: float = PATIENCE_SECONDS
    between: bool = False


@dataclass(slots=True)
class _Under:
    """A look on its way, in a thread that nobody has to wait for."""

    look: Look
    found: list[Check] = field(default_factory=list)
    over: bool = False

    def go(self) -> None:
        try:
            for check in self.look.at():
                self.found.append(check)
        except Exception as error:  # noqa: BLE001 - whatever is broken there is what the report is about
            if not self.look.between:
                self.found.append(fail(self.look.name, said(error), self.look.do))
        self.over = True


def examined(looks: Sequence[Look]) -> Iterator[Check]:
    """What all of them find, in their order. They look at the same time, each for its own seconds and no longer."""
    begun = time.monotonic()
    under = [_Under(look) for look in looks]
    threads = [threading.Thread(target=one.go, name=f"doctor-{one.look.name}", daemon=True) for one in under]
    for thread in threads:
        thread.start()
    for one, thread in zip(under, threads, strict=True):
        thread.join(max(0.0, begun + one.look.seconds - time.monotonic()))
        hangs = not one.over
        yield from list(one.found)
        if hangs and not one.look.between:
            yield fail(one.look.name, f"no answer within {one.look.seconds:g} s", one.look.do)
