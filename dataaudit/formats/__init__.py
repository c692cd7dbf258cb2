"""Datasets as files: each module here is a format, found by itself.

A format module has

- ``NAME`` and ``DESCRIPTION``, one sentence that a user reads;
- ``sniff(path) -> bool``, cheap; `path` may be the name of something that isn't a file;
- ``read(path, *, options) -> Tables``;
- ``patch(source, fixes) -> list[Operation]``: it edits nothing, it says what is to be done;
- optionally ``class_ids(source) -> Mapping``: the number or id that its files give each class, to its name;
- optionally ``states(path) -> list[Path]``: where an interrupted fix of it could have left its journal;
- optionally ``OBJECTS = True``: it has boxes. Where such a format fits, ``folder`` doesn't, to which any
  folders of images look like classes.

Modules whose names begin with an underscore are parts of formats.
"""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from dataaudit import journal
from dataaudit.errors import FormatError, InputError, MissingDependencyError, nearest
from dataaudit.formats._files import kind_of, why_unread
from dataaudit.formats._shared import is_ignored, is_image
from dataaudit.types import Fix, Source, Tables

__all__ = ["class_ids", "formats", "patch", "read", "recover"]


@cache
def formats() -> Mapping[str, Any]:
    """The modules of the formats by name.

    >>> sorted(set(formats()) & {"folder", "manifest"})
    ['folder', 'manifest']
    """
    names = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]
    modules = [importlib.import_module(f"{__name__}.{name}") for name in sorted(names)]
    return {module.NAME: module for module in modules}


def read(
    path: str | Path,
    *,
    format: str | None = None,  # noqa: A002 - the word that users know
    options: Mapping[str, str] | None = None,
) -> Tables:
    """Read a dataset; a fix of it that was interrupted is finished first.

    Args:
        path: a folder, a manifest file, or a name that one of the formats knows.
        format: name of the format; found by itself when it is left out.
        options: settings of the format, such as the name of the label column.

    Raises:
        FormatError: nothing there, not recognised, or more than one format fits.
        InputError: an unknown format or option.
    """
    path = Path(path).expanduser() if str(path).startswith("~") else Path(path)
    recover(path)
    module = _named(format) if format is not None else _detect(path)
    of_files = module.NAME in ("folder", "manifest") or getattr(module, "OBJECTS", False)
    if format is not None and of_files and not path.exists():
        raise _missing(path)
    found: Tables = module.read(path, options=dict(options or {}))
    if not len(found.images):
        raise _unrecognised(path)
    return found


def patch(source: Source, fixes: Sequence[Fix]) -> list[journal.Operation]:
    """The operations that carry out `fixes`, checked against what the files hold now; nothing is changed yet.

    Raises:
        ConflictError: the source no longer holds what a fix expects.
        InputError: two fixes of one label, or one that can't be carried out.
    """
    twice = [label for label, n in Counter(fix.label_id for fix in fixes).items() if n > 1]
    if twice:
        raise InputError(f"There are two fixes of {twice[0]}; at most one can be applied.")
    if not fixes:
        return []
    operations: list[journal.Operation] = _named(source.format).patch(source, fixes)
    return operations


def class_ids(source: Source) -> Mapping[Any, str]:
    """The number or id that the files of a dataset give each class, to its name; empty without any."""
    module = _named(source.format)
    found: Mapping[Any, str] = module.class_ids(source) if hasattr(module, "class_ids") else {}
    return found


def recover(path: str | Path) -> bool:
    """Finish a fix of the dataset at `path` that was interrupted; True where there was one."""
    places = [
        place
        for module in formats().values()
        if hasattr(module, "states")
        for place in module.states(Path(path))
    ]
    return bool(sum(journal.recover(place) for place in dict.fromkeys(places)))


def _named(name: str) -> Any:
    if name not in formats():
        raise InputError(f"There is no format {name!r}. {nearest(name, formats())}")
    return formats()[name]


def _detect(path: Path) -> Any:
    fitting, unknown = [], []
    for module in formats().values():
        try:
            fitting += [module] if module.sniff(path) else []
        except MissingDependencyError as error:  # such as no database: the other formats may still fit
            unknown.append(f"The format {module.NAME} could not be tried: {error}")
    if any(getattr(module, "OBJECTS", False) for module in fitting):
        fitting = [module for module in fitting if module.NAME != "folder"]
    if len(fitting) > 1:
        raise FormatError(
            f"This can be read as {' and as '.join(module.NAME for module in fitting)}.",
            where=path,
            fix="Say which: give the format, or the path of the manifest file itself.",
        )
    if fitting:
        return fitting[0]
    raise _unrecognised(path) if path.exists() else _missing(path, unknown)


def _known() -> str:
    return "Formats:\n" + "\n".join(f"  {name}: {module.DESCRIPTION}" for name, module in formats().items())


def _missing(path: Path, unknown: Sequence[str] = ()) -> FormatError:
    folder = path.parent
    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    close = difflib.get_close_matches(path.name, names, n=1)
    hint = f"Did you mean {folder / close[0]}?\n" if close else ""
    return FormatError(
        "There is no such file, folder or dataset.", where=path, fix=hint + "\n".join([_known(), *unknown])
    )


def _unrecognised(path: Path) -> FormatError:
    if path.is_file():
        kind = f"a {path.suffix} file" if path.suffix else "a file without an ending"
        fix = "\n".join([*filter(None, [why_unread([path])]), _known()])
        return FormatError(f"This is {kind}; expected a folder or a manifest.", where=path, fix=fix)
    if not path.is_dir():
        return FormatError(f"This is {kind_of(path)}; expected a folder or a file.", where=path, fix=_known())
    names = sorted(entry.name for entry in path.iterdir() if not is_ignored(entry.name))
    if not names:
        return FormatError("The folder is empty.", where=path, fix=_known())
    folders = [name for name in names if (path / name).is_dir()]
    files = [name for name in names if name not in folders]
    kinds = Counter((Path(name).suffix.lower() or "no ending") for name in files)
    counted = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common(6))
    seen = [f"{len(files)} files ({counted}), such as {', '.join(files[:3])}"] if files else []
    seen += [f"{len(folders)} folders, such as {', '.join(folders[:5])}"] if folders else []
    if any(is_image(name) for name in files):
        what = "The folder holds images but no class folders and no manifest"
    elif folders and any(is_image(file) for *_, inner in os.walk(path) for file in inner):
        what = "The folder holds images, but no format fits how they are laid out"
    else:
        what = "The folder holds no images"
    fix = "\n".join([*filter(None, [why_unread(path / name for name in names)]), _known()])
    return FormatError(f"{what}. Seen: {'; '.join(seen)}.", where=path, fix=fix)
