"""The ledger of applied fixes: its lines, and what takes them back."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from dataaudit import journal, state
from dataaudit.errors import ConflictError, InputError
from dataaudit.fix.choosing import Planned
from dataaudit.types import Source

__all__ = ["append", "line_of", "now", "operation", "read", "standing", "way_back"]


def line_of(item: Planned, application: str, reviewer: str | None) -> dict[str, Any]:
    """The line of a fix."""
    fix = item.fix
    return {
        "id": application,
        "at": now(),
        "reviewer": item.reviewer or reviewer,
        "op": fix.op,
        "sample_id": fix.sample_id,
        "label_id": fix.label_id,
        "locator": asdict(fix.locator),
        "old": fix.old,
        "new": fix.new,
        **{name: box for name, box in (("old_box", fix.old_box), ("box", fix.box)) if box is not None},
        "code": item.code,
        "finding": item.finding,
        "score": item.score,
        "probability": item.probability,
    }


def way_back(
    folder: Path, operations: Sequence[journal.Operation]
) -> tuple[list[journal.Operation], list[dict[str, Any]]]:
    """What has to be kept for an undo, and the records of the undo."""
    kept: dict[str, journal.Operation] = {}
    undone = journal.invert(folder, [each for each in operations if not _is_over(each)])
    for operation in operations:
        if not isinstance(operation, journal.Write) or not _is_over(operation):
            continue
        name = f"dropped/{operation.old_md5}{operation.path.suffix}.gz"
        if name not in kept and not (folder / name).exists():  # named by its content: there after an undo
            content = gzip.compress(operation.path.read_bytes(), mtime=0)
            kept[name] = journal.Write(path=folder / name, old_md5=None, content=content)
        back = journal.Write(path=operation.path, old_md5=journal.md5(operation.content), content=b"")
        undone.append({**journal.to_record(folder, back), "content": None, "kept": name})
    return list(kept.values()), undone


def _is_over(operation: journal.Operation) -> bool:
    """Whether an operation writes over a file, whose bytes are then in no record."""
    return isinstance(operation, journal.Write) and operation.old_md5 is not None


def operation(folder: Path, record: Mapping[str, Any]) -> journal.Operation:
    """The operation that a line says takes its fixes back.

    Raises:
        ConflictError: what was kept for it is gone.
    """
    if "kept" not in record:
        return journal.from_record(folder, record)
    kept = folder / record["kept"]
    if not kept.exists():
        raise ConflictError(
            "The bytes from before the fix are gone.", where=kept, fix="Check out a version instead."
        )
    content = gzip.decompress(kept.read_bytes()).decode("latin-1")
    return journal.from_record(
        folder, {**{k: v for k, v in record.items() if k != "kept"}, "content": content}
    )


def standing(source: Source) -> list[list[dict[str, Any]]]:
    """The lines of each application that hasn't been taken back, oldest first."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in read(state.ledger_file(source)):
        if line["op"] == "undo":
            found.pop(line["undoes"], None)
        else:
            found.setdefault(line["id"], []).append(line)
    return list(found.values())


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a ledger, oldest first; none where there is no file.

    Raises:
        InputError: a damaged line, with file and line.
    """
    lines = path.read_bytes().decode(errors="replace").split("\n") if path.exists() else []
    for number, text in enumerate(lines, start=1):
        try:
            line = json.loads(text or "{}")
            if not line:
                continue
            line["op"], line["id"]
        except (ValueError, KeyError, TypeError):
            if number == len(lines):
                return  # a line whose writing was interrupted; the next one takes its place
            raise InputError("The line of the ledger can't be read.", where=f"{path}:{number}") from None
        yield line


def append(path: Path, lines: Sequence[Mapping[str, Any]]) -> journal.Append:
    """The operation that writes lines into a ledger."""
    return journal.Append(path=path, lines=tuple(json.dumps(line, ensure_ascii=False) for line in lines))


def now() -> str:
    """The present time, as a line holds it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
