"""The class list of a YOLO dataset: where it is, what it says, and how a class is added to it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataaudit.errors import FormatError, InputError
from dataaudit.formats import _cells
from dataaudit.formats._files import content_of, head_of, why_unread
from dataaudit.formats._shared import check_name
from dataaudit.journal import edited

SPLIT_KEYS = ("train", "val", "valid", "validation", "test")

_FILES = (
    "classes.txt",
    "obj.names",
    "names.txt",
    "class_names.txt",
    "_darknet.labels",
    "predefined_classes.txt",
)
_USUAL = ("data", "dataset", "config")
_MAX_SIZE = 1 << 20
_NAMES = re.compile(r"^(?:names|nc)[ \t]*:", re.MULTILINE)
_SPLITS = re.compile(r"^(?:train|val|test)[ \t]*:", re.MULTILINE)
_PLAIN = re.compile(r"[^\W\d][\w /()-]*\w|[^\W\d]")
_WORDS = {"y", "n", "yes", "no", "true", "false", "on", "off", "null", "nan"}


@dataclass(frozen=True, kw_only=True)
class Config:
    """What a ``data.yaml`` says.

    Attributes:
        file: the file; None where there is none.
        path: folder that the splits are relative to, as it is written.
        splits: name of a split to its folders or lists, as they are written.
        names: class number to name; empty where it names none.
        names_file: file that it says the names are in.
        n_classes: number of classes that it says.
        keypoints: how many numbers of keypoints follow a box.
        again: keys that it has twice, and the line where each comes again.
        odd: keys whose values can't be used, and what was expected.
    """

    file: Path | None = None
    path: str = ""
    splits: Mapping[str, Sequence[str]] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)
    names_file: str | None = None
    n_classes: int | None = None
    keypoints: int = 0
    again: Sequence[tuple[str, int]] = ()
    odd: Sequence[tuple[str, str]] = ()


def is_config(file: Path, *, with_splits: bool = True) -> bool:
    """Whether a file looks like a ``data.yaml``; it may be damaged."""
    if file.suffix.lower() not in (".yaml", ".yml") or not file.is_file() or file.stat().st_size > _MAX_SIZE:
        return False
    try:
        text = re.sub("\r\n?", "\n", _cells.decode(head_of(file, _MAX_SIZE), file).text)
    except FormatError:
        return False
    return bool(_NAMES.search(text) and (_SPLITS.search(text) or not with_splits))


def config_of(folder: Path, name: str | None = None) -> Config:
    """The ``data.yaml`` of a folder, an empty one where there is none.

    Args:
        folder: of the dataset.
        name: of the file, where the user says.

    Raises:
        FormatError: several, or one that can't be read.
        InputError: the user's isn't there.
    """
    if name is not None:
        if not (folder / name).is_file():
            raise InputError(f"There is no file {name!r} for the option config.", where=folder)
        return _read_config(folder / name)
    files = [*sorted(folder.glob("*.yaml")), *sorted(folder.glob("*.yml"))]
    found = [file for file in files if is_config(file)] or [
        file for file in files if is_config(file, with_splits=False)
    ]
    usual = [file for file in found if file.stem.lower() in _USUAL]
    found = usual if len(usual) == 1 else found
    if len(found) > 1:
        raise FormatError(
            f"The folder has several files of classes and splits: {', '.join(file.name for file in found)}.",
            where=folder,
            fix=f"Give the path of one, such as {found[0]}.",
        )
    return _read_config(found[0]) if found else Config()


def _read_config(file: Path) -> Config:
    import yaml

    text = _cells.decode(content_of(file), file).text
    try:
        # Scalars stay as they are written: a class may be called "no"
        said = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        place, problem = _where(error, text, file)
        raise FormatError(f"This isn't YAML: {problem}.", where=place, fix="Correct the file.") from None
    except RecursionError:
        raise FormatError("This YAML is too deeply nested.", where=file) from None
    if not isinstance(said, dict):
        raise FormatError("The file is no mapping; expected train:, val: and names:.", where=file)
    splits = {key: _texts(said.get(key)) for key in SPLIT_KEYS}
    shape = said.get("kpt_shape")
    count = str(said.get("nc", ""))
    names = said.get("names")
    return Config(
        file=file,
        path=said["path"] if isinstance(said.get("path"), str) else "",
        splits={key: each for key, each in splits.items() if each},
        names=_names(names, file),
        names_file=names if isinstance(names, str) and names not in ("", "null", "~") else None,
        n_classes=int(count) if re.fullmatch(r"[0-9]{1,9}", count) else None,
        keypoints=_keypoints(shape),
        again=_again(text),
        odd=_odd(said),
    )


def _odd(said: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The settings that can't be used, and what was expected."""
    found = []
    if not isinstance(said.get("path", ""), str):
        found.append(("path", "a folder"))
    for key in SPLIT_KEYS:
        entries = said.get(key, "")
        entries = entries if isinstance(entries, list) else [entries]
        if not all(isinstance(entry, str) for entry in entries):
            found.append((key, "a folder, a list of images, or several of them"))
    if not re.fullmatch(r"[0-9]{1,9}", str(said.get("nc", 0))):
        found.append(("nc", "the number of classes"))
    if "kpt_shape" in said and not _keypoints(said["kpt_shape"]):
        found.append(("kpt_shape", "two numbers"))
    return found


def _where(error: Exception, text: str, file: Path) -> tuple[str, str]:
    """Where an error of YAML is, and what it says."""
    mark, position = getattr(error, "problem_mark", None), getattr(error, "position", None)
    if mark is not None:
        return f"{file}:{mark.line + 1}:{mark.column + 1}", str(getattr(error, "problem", None) or error)
    if isinstance(position, int):
        line, column = text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position)
        return f"{file}:{line}:{column}", f"the character {text[position : position + 1]!r} isn't allowed"
    return str(file), str(error)


def _again(text: str) -> list[tuple[str, int]]:
    """The keys that stand in a mapping for the second time, and their lines; the last one counts."""
    import yaml

    top = yaml.compose(text, Loader=yaml.BaseLoader)
    pairs = list(top.value) if isinstance(top, yaml.MappingNode) else []
    pairs += [pair for _, value in pairs if isinstance(value, yaml.MappingNode) for pair in value.value]
    seen: set[tuple[int, str]] = set()
    found = []
    for key, _ in pairs:
        place = (key.start_mark.column, str(key.value))
        if place in seen:
            found.append((str(key.value), key.start_mark.line + 1))
        seen.add(place)
    return found


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str) and text not in ("", "null", "~")]


def _keypoints(shape: Any) -> int:
    numbers = shape if isinstance(shape, list) else []
    sizes = [int(size) for size in numbers if isinstance(size, str) and re.fullmatch(r"[0-9]{1,4}", size)]
    return sizes[0] * sizes[1] if len(sizes) == len(numbers) == 2 else 0


def _names(value: Any, file: Path) -> dict[int, str]:
    named = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
    for name in named:
        if not isinstance(name, str):
            raise FormatError(
                f"The name of a class is {str(name)[:60]!r}, which is no text.",
                where=file,
                fix="Correct the names.",
            )
        check_name(name, file)
    if isinstance(value, list):
        return {number: str(name) for number, name in enumerate(value) if str(name).strip()}
    if not isinstance(value, dict):
        return {}
    names = {}
    for key, name in value.items():
        if not isinstance(key, str) or not re.fullmatch(r"[0-9]{1,9}", key):
            raise FormatError(
                f"The key {key!r} of the names is no class number.",
                where=file,
                fix="Expected a list of names, or numbers from 0 with a name each.",
            )
        names[int(key)] = str(name)
    return names


def not_used(folder: Path) -> str:
    """Why the YAML files and class lists of a folder aren't used; empty where there are none."""
    files = [*folder.glob("*.yaml"), *folder.glob("*.yml"), *(folder / name for name in _FILES)]
    there = sorted(file for file in files if file.is_symlink() or file.exists())
    return " ".join(
        why_unread([file]).replace(f"{folder}/", "")
        or f"{file.name} has no names: or nc: beside train: or val:."
        for file in there
    )


def class_file(folders: Sequence[Path]) -> Path | None:
    """The class list in one of the folders, one name a line."""
    for folder in dict.fromkeys(folders):
        for name in _FILES:
            if (folder / name).is_file():
                return folder / name
        found = sorted(folder.glob("*.names"))
        if len(found) == 1:
            return found[0]
    return None


def read_class_file(file: Path) -> dict[int, str]:
    """Class number to name; a line is a class, also an empty one between others."""
    return _lines_of(_cells.decode(content_of(file), file).text)


def _lines_of(text: str) -> dict[int, str]:
    lines = text.splitlines()
    return {number: line.strip() for number, line in enumerate(lines) if line.strip()}


# Adding classes


def added(file: Path, content: bytes, known: Mapping[int, str], new: Sequence[str]) -> tuple[Any, ...]:
    """The splices that add classes to a class list.

    Args:
        file: a ``data.yaml``, or a file with one name a line.
        content: of the file.
        known: its classes.
        new: names to add, with the numbers after the last.

    Raises:
        InputError: a name that the file can't hold, or a list that can't be extended.
    """
    from dataaudit.formats import _json

    decoded = _cells.decode(content, file)
    for name in new:
        if not name.isprintable():
            raise InputError(f"The class {name!r} can't stand in a class list.", where=file)
    if file.suffix.lower() in (".yaml", ".yml"):
        changes = _added_to_yaml(file, decoded.text, known, new)
    else:
        changes = _added_to_lines(decoded.text, known, new)
    splices = _json.to_splices(decoded, changes, file)
    wanted = {**known, **dict(enumerate(new, max(known, default=-1) + 1))}
    text = _cells.decode(edited(content, splices), file).text
    if _said(text, file) != wanted:
        raise InputError(
            f"The list of classes can't be extended by {new[0]!r}.", where=file, fix="Add it by hand."
        )
    return splices


def _said(text: str, file: Path) -> dict[int, str] | None:
    """The names in the text of a class list; None where it can't be read."""
    import yaml

    if file.suffix.lower() not in (".yaml", ".yml"):
        return _lines_of(text)
    try:
        return _names(yaml.load(text, Loader=yaml.BaseLoader)["names"], file)
    except (yaml.YAMLError, FormatError, KeyError, TypeError):
        return None


def _added_to_lines(text: str, known: Mapping[int, str], new: Sequence[str]) -> list[tuple[int, int, str]]:
    end = _cells.line_end(text)
    lines = text.splitlines(keepends=True)[: max(known, default=-1) + 1]
    at = sum(map(len, lines))
    open_end = bool(lines) and not lines[-1].endswith(("\n", "\r"))
    return [(at, at, end + end.join(new) if open_end else "".join(name + end for name in new))]


def _added_to_yaml(
    file: Path, text: str, known: Mapping[int, str], new: Sequence[str]
) -> list[tuple[int, int, str]]:
    import yaml

    top = yaml.compose(text, Loader=yaml.BaseLoader)
    nodes = {key.value: value for key, value in top.value if isinstance(key, yaml.ScalarNode)}
    names = nodes.get("names")
    if not isinstance(names, yaml.SequenceNode | yaml.MappingNode) or not names.value:
        raise InputError(f"The names can't be extended by {new[0]!r}.", where=file, fix="Add it by hand.")
    mapping = isinstance(names, yaml.MappingNode)
    key, value = names.value[-1] if mapping else (names.value[-1], names.value[-1])
    start, end = key.start_mark.index, value.end_mark.index
    first = max(known, default=-1) + 1
    quoted = [_scalar(name, text[value.start_mark.index : end]) for name in new]
    if mapping:
        between = text[key.end_mark.index : value.start_mark.index]
        quoted = [f"{number}{between}{name}" for number, name in enumerate(quoted, first)]
    if names.flow_style:
        at, inserted = end, "".join(f", {each}" for each in quoted)
    else:
        at = next((n for n in range(end, len(text)) if text[n] in "\r\n"), len(text))
        line = max(text.rfind("\n", 0, start), text.rfind("\r", 0, start)) + 1
        inserted = "".join(f"{_cells.line_end(text)}{text[line:start]}{each}" for each in quoted)
    changes = [(at, at, inserted)]
    count = nodes.get("nc")
    if isinstance(count, yaml.ScalarNode) and count.value == str(len(known)):
        changes.append((count.start_mark.index, count.end_mark.index, str(len(known) + len(new))))
    return changes


def _scalar(name: str, like: str) -> str:
    """A name as YAML, with the quotes of another."""
    if like.startswith("'"):
        return "'" + name.replace("'", "''") + "'"
    plain = _PLAIN.fullmatch(name) is not None and name.lower() not in _WORDS
    return name if plain and not like.startswith('"') else json.dumps(name, ensure_ascii=False)
