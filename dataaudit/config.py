"""Settings of a project: ``dataaudit.toml``, or ``[tool.dataaudit]`` in a ``pyproject.toml``, as linters have them."""

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
    device: str = "auto"
    fiftyone: bool = True
    options: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    file: Path | None = None


_KINDS: dict[str, type] = {
    "select": list, "ignore": list, "fail_on": list, "backbone": str, "device": str, "fiftyone": bool, "options": dict,
    "settings": dict,
}  # fmt: skip


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
                if name == "pyproject.toml":
                    table = table.get("tool", {}).get("dataaudit")
                if table is not None:
                    return _config(table, file)
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


def _config(table: Mapping[str, Any], file: Path) -> Config:
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in _KINDS:
            known = [each.name.replace("_", "-") for each in fields(Config) if each.name != "file"]
            raise InputError(f"There is no setting {key!r}. {nearest(key, known)}", where=file)
        if isinstance(value, str) and _KINDS[name] is list:
            value = [value]
        if not isinstance(value, _KINDS[name]):
            raise InputError(f"{key} = {value!r}: expected a {_KINDS[name].__name__}.", where=file)
        values[name] = tuple(value) if isinstance(value, list) else value
    return Config(**values, file=file)
