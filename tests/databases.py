"""FiftyOne for the tests, in a database of their own (see conftest)."""

from __future__ import annotations

from typing import Any

import pytest

from dataaudit.errors import MissingDependencyError
from dataaudit.formats._fiftyone import connect


def fiftyone() -> Any:
    """The module, connected; skips the test where there is no mongod."""
    try:
        return connect()
    except MissingDependencyError as error:
        pytest.skip(str(error))
