"""One line per event on standard error: for people at a terminal, as JSON for machines."""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal

import structlog

from core.redact import redact

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def configure(level: str, style: Literal["auto", "json", "text"]) -> None:
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
            _extra,
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


def _without_secrets(_logger: object, _method: str, line: Any) -> str:
    """Last of all, over the finished line: tracebacks and paths may quote anything."""
    return redact(str(line))


def _extra(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """What the caller gave as `extra` stands beside the message."""
    record: logging.LogRecord = event["_record"]
    extra: Mapping[str, Any] = {key: value for key, value in vars(record).items() if key not in _OWN}
    return {**event, **extra}
