"""When something was decided."""

from __future__ import annotations

from datetime import datetime, timezone

__all__ = ["is_time", "moment", "now"]

_NEVER = datetime.min.replace(tzinfo=timezone.utc)


def now() -> str:
    """The present time, ISO 8601 in UTC to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def moment(at: str | None) -> datetime:
    """The time that a text says, in UTC where it names no zone; before all others where it says none.

    >>> moment("2026-03-01T12:00:00Z") == moment("2026-03-01T13:00:00+01:00")
    True
    """
    return _parsed(at) or _NEVER


def is_time(at: str) -> bool:
    """Whether a text is a date with a time in ISO 8601."""
    return _parsed(at) is not None


def _parsed(at: str | None) -> datetime | None:
    try:
        # Python 3.10 reads neither a Z nor a fraction that isn't of 3 or 6 digits
        found = datetime.fromisoformat((at or "").replace("Z", "+00:00"))
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=timezone.utc)
