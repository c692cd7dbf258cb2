"""Settings of a project: ``dataaudit.toml``, or ``[tool.dataaudit]`` in a ``pyproject.toml``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from dataaudit.errors import InputError, nearest

__all__ = ["Config", "find"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """What a project sets once.

    Attributes:
        select: codes or prefixes of the checks to run; empty runs all.
        ignore: codes or prefixes to leave out.
        fail_on: rules of the gate, such as ``LBL>1%``; empty: any finding.
        backbone: name of the backbone.
        baseline: what judges the labels, ``probe`` or ``finetune``.
        detector: what finds objects, ``baseline`` or ``finetune``.
        device: ``auto``, ``cpu``, ``cuda``, ``mps``.
        fiftyone: whether an audit from the command line is written into FiftyOne.
        options: options of the format.
        settings: settings of checks by code and of signals by name.
        file: where all this stands; None when there is no such file.
    """

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    fail_on: tuple[str, ...] = ()
    backbone: str = "efficientnet_lite0"
    baseline: str = "probe"
    detector: str = "baseline"
    device: str = "auto"
    fiftyone: bool = True
    options: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    file: Path | None = None


_KINDS = {
    "select": "a list of strings",
    "ignore": "a list of strings",
    "fail_on": "a list of strings",
    "backbone": "a string",
    "baseline": "a string",
    "detector": "a string",
    "device": "a string",
    "fiftyone": "true or false",
    "options": "a table of strings",
    "settings": "a table of tables",
}


def find(path: str | Path) -> Config:
    """The settings for a dataset: of the nearest ``dataaudit.toml`` or ``pyproject.toml`` at or above it.

    Raises:
        InputError: a file that isn't TOML, an unknown key, or a value of the wrong kind, with the file's
            name.
    """
    start = Path(path).absolute()
    for folder in (start, *start.parents):
        for name in ("dataaudit.toml", "pyproject.toml"):
            file = folder / name
            if file.is_file():
                table = _read(file)
                found: Any = table
                if name == "pyproject.toml":
                    tool = table.get("tool")
                    found = tool.get("dataaudit") if isinstance(tool, dict) else None
                if found is not None:
                    return _config(found, file)
    return Config()


def _read(file: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return dict(tomllib.loads(file.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"This is not valid TOML: {error}.", where=file) from error


def _config(table: Any, file: Path) -> Config:
    if not isinstance(table, dict):
        raise InputError(f"[tool.dataaudit] is {table!r}; expected a table.", where=file)
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in _KINDS:
            known = [each.name.replace("_", "-") for each in fields(Config) if each.name != "file"]
            raise InputError(f"There is no setting {key!r}. {nearest(key, known)}", where=file)
        if isinstance(value, str) and _KINDS[name] == "a list of strings":
            value = [value]
        if not _fits(value, _KINDS[name]):
            raise InputError(f"{key} = {value!r}: expected {_KINDS[name]}.", where=file)
        values[name] = tuple(value) if isinstance(value, list) else value
    return Config(**values, file=file)


def _fits(value: Any, kind: str) -> bool:
    if kind == "a string":
        return isinstance(value, str)
    if kind == "true or false":
        return isinstance(value, bool)
    if kind == "a list of strings":
        return isinstance(value, list) and all(isinstance(each, str) for each in value)
    inner = str if kind == "a table of strings" else dict
    return isinstance(value, dict) and all(isinstance(each, inner) for each in value.values())
