"""One line per event on standard error: for people at a terminal, as JSON for machines."""

import contextvars
import logging
import sys
import threading
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Literal

import structlog

from core.redact import redact_secrets

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def configure_logging(level: str, style: Literal["auto", "json", "text"]) -> None:
    """Send all logging of this process through one handler."""
    as_text = style == "text" or (style == "auto" and sys.stderr.isatty())
    renderer: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer() if as_text else structlog.processors.JSONRenderer()
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.contextvars.merge_contextvars,
            _merge_extra,
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *([] if as_text else [structlog.processors.format_exc_info]),
            renderer,
            _without_secrets,
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


def log_context(**fields: object) -> AbstractContextManager[Any]:
    """Every line that is logged inside carries these fields, also in threads started by way of `with_log_context`."""
    return structlog.contextvars.bound_contextvars(**fields)


def with_log_context(action: Callable[[], None]) -> Callable[[], None]:
    """`action` for a new thread, whose log lines carry the fields of the present log context."""
    context = contextvars.copy_context()
    return lambda: context.run(action)


def _without_secrets(_logger: object, _method: str, line: Any) -> str:
    """The last processor redacts the finished line: messages and tracebacks may quote secrets."""
    return redact_secrets(str(line))


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Log an uncaught exception through our handler, which redacts secrets; Python's own hook does not."""
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("basin").critical("the process ends of an error", exc_info=(kind, error, trace))


def _log_uncaught_in_thread(given: threading.ExceptHookArgs) -> None:
    if given.exc_value is not None and not issubclass(given.exc_type, SystemExit):
        trace = (given.exc_type, given.exc_value, given.exc_traceback)
        logging.getLogger("basin").error("a thread ended of an error", exc_info=trace)


def _merge_extra(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The event with the fields that the caller gave as `extra`."""
    record: logging.LogRecord = event["_record"]
    extra: Mapping[str, Any] = {key: value for key, value in vars(record).items() if key not in _OWN}
    return {**event, **extra}
