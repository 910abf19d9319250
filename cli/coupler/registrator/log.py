"""Logs: one JSON object a line on standard error, or plain lines for a person at a terminal."""

from __future__ import annotations

import datetime as dt
import logging
import sys

import orjson

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """Time (RFC 3339, UTC), level, message, and what the record carries beside them."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        return orjson.dumps(_fields(record), default=str).decode()


class PlainLines(logging.Formatter):
    """The same, for a person."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, and a traceback where there is one."""
        fields = _fields(record)
        time, level, message = (str(fields.pop(name)) for name in ("time", "level", "message"))
        trace = fields.pop("trace", None)
        said = " ".join(f"{name}={value}" for name, value in fields.items() if value is not None)
        return f"{time[11:23]} {level:<7} {message}{': ' if said else ''}{said}" + (f"\n{trace}" if trace else "")


def start(level: str) -> None:
    """Log to standard error from now on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainLines() if sys.stderr.isatty() else JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    moment = dt.datetime.fromtimestamp(record.created, dt.UTC)
    fields: dict[str, object] = {
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "message": record.getMessage(),
    }
    fields |= {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
    if record.exc_info:
        fields["trace"] = logging.Formatter().formatException(record.exc_info)
    return fields
