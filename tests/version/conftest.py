from __future__ import annotations

import pytest
from trees import folder, tree


@pytest.fixture
def photos(tmp_path):
    return folder(tmp_path / "work" / "photos")


@pytest.fixture
def tree_of():
    return tree
