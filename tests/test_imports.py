"""The rule of imports: a room knows only the rooms above it, and each heavy package has its owners."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import dataaudit

ROOT = Path(dataaudit.__file__).parent
ROOMS = (
    "errors",
    "types",
    "registry",
    "state",
    "journal",
    "metrics",
    "decode",
    "cache",
    "progress",
    "formats",
    "tables",
    "sweep",
    "annotators",
    "signals",
    "checks",
    "decisions",
    "inputs",
    "predictions",
    "config",
    "rules",
    "findings",
    "pipeline",
    "worklist",
    "report",
    "review",
    "fix",
    "version",
    "loading",
    "modelcheck",
    "doctor",
    "demo",
    "commands",
    "cli",
    "__main__",
)
OWNERS = {
    "torch": {"signals", "modelcheck", "doctor"},
    "torchvision": {"signals", "modelcheck", "doctor"},
    "timm": {"signals", "modelcheck", "doctor"},
    "openvino": {"signals", "modelcheck", "doctor"},
    "pytorch_lightning": {"signals", "modelcheck"},
    "faiss": {"signals", "doctor"},
    "cleanlab": {"checks", "doctor"},
    "fiftyone": {"formats", "tables", "review", "journal", "loading", "doctor"},
    "dvc": {"version", "doctor"},
}
# A report shows itself in a notebook; the registry discovers what is in the rooms of signals and checks; and
# the demo's figures are made where the command's are. The catalogue of the model side is only text.
EXCEPTIONS = {
    ("types", "report"),
    ("registry", "signals"),
    ("registry", "checks"),
    ("registry", "modelcheck"),
    ("demo", "commands"),
}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports() -> Iterator[tuple[str, str, int, bool]]:
    """Room, imported module, line, and whether only a type checker follows it, of every import."""
    for file in sorted(ROOT.rglob("*.py")):
        room = file.relative_to(ROOT).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        typing = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file}:{node.lineno}: a relative import"
                names = [node.module or ""]
                if node.module == "dataaudit":
                    names = [f"dataaudit.{alias.name}" for alias in node.names]
            else:
                continue
            for name in names:
                yield room, name, node.lineno, id(node) in typing


def test_every_module_has_its_room() -> None:
    assert {room for room, *_ in imports()} <= set(ROOMS)


def test_a_room_imports_only_rooms_above_it() -> None:
    wrong = [
        f"{room}:{line} imports {name}"
        for room, name, line, typing in imports()
        if name.startswith("dataaudit.")
        and not typing
        and room_of(name) in ROOMS
        and ROOMS.index(room_of(name)) > ROOMS.index(room)
        and (room, room_of(name)) not in EXCEPTIONS
    ]
    assert wrong == []


def test_heavy_packages_are_imported_only_by_their_owners() -> None:
    wrong = [
        f"{room}:{line} imports {name}"
        for room, name, line, typing in imports()
        if not typing and room not in OWNERS.get(name.split(".")[0], {room})
    ]
    assert wrong == []


def loaded_after(code: str) -> set[str]:
    """The top-level packages that a fresh interpreter has loaded after `code`."""
    script = (
        f"{code}\nimport sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(result.stderr.split())


HEAVY = {
    "torch",
    "torchvision",
    "pytorch_lightning",
    "cleanlab",
    "fiftyone",
    "dvc",
    "openvino",
    "faiss",
    "sklearn",
    "scipy",
}
HELP = """
import contextlib
from dataaudit.cli import main
with contextlib.suppress(SystemExit):
    main(["--help"])
"""


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import dataaudit", HEAVY | {"pandas", "numpy", "PIL"}),
        (HELP, HEAVY | {"pandas", "numpy", "PIL"}),
        ("from dataaudit.pipeline import audit", HEAVY),
    ],
    ids=["import", "help", "audit"],
)
def test_what_is_heavy_is_loaded_only_when_it_is_needed(code: str, absent: set[str]) -> None:
    assert loaded_after(code) & absent == set()


def test_every_public_name_can_be_had() -> None:
    for name in dataaudit.__all__:
        assert getattr(dataaudit, name) is not None
    assert set(dataaudit.__all__) <= set(dir(dataaudit))
    with pytest.raises(AttributeError, match="no attribute 'audti'"):
        dataaudit.audti  # noqa: B018
