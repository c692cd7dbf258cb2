"""Where the images and the label files of a YOLO dataset are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dataaudit.errors import FormatError, InputError
from dataaudit.formats import _yolo_names
from dataaudit.formats._files import content_of, head_of, is_folder, kind_of
from dataaudit.formats._shared import check_name, is_ignored, is_image
from dataaudit.formats._yolo_lines import lines_of, parsed
from dataaudit.formats._yolo_names import Config
from dataaudit.formats.folder import SPLITS

OPTIONS = ("config", "images", "labels", "names")

_LISTS = (".txt",)
_SNIFFED = 20


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image and the label file that belongs to it, which needn't be there.

    Attributes:
        path: absolute.
        label: absolute.
        split: None where there is none.
        listed: the lists that name it, and the line in each; empty where it is just in a folder.
    """

    path: str
    label: str
    split: str | None
    listed: tuple[tuple[Path, int], ...] = ()


@dataclass(kw_only=True)
class Layout:
    """The images of a dataset in their order, its class list, and what was odd about where they are.

    Attributes:
        config: of the dataset.
        images: in their order.
        names: class number to name; empty where there is no list.
        names_file: where the names are; None where there is no list.
        texts: label files that are there, absolute.
        notes: kind, message and whether it is a note, of what was met.
        again: images that a further split names too.
    """

    config: Config
    images: list[Image] = field(default_factory=list)
    names: Mapping[int, str] = field(default_factory=dict)
    names_file: Path | None = None
    texts: set[str] = field(default_factory=set)
    notes: list[tuple[str, str, bool]] = field(default_factory=list)
    again: list[str] = field(default_factory=list)


def sniff(path: Path) -> bool:
    """Whether there are images with YOLO labels, or a file that describes them."""
    if path.is_file():
        return _yolo_names.is_config(path)
    if not path.is_dir():
        return False
    if any(_yolo_names.is_config(file) for file in _plain_files(path) if file.suffix in (".yaml", ".yml")):
        return True
    for images, labels in _pairs(path):
        if images == labels and _yolo_names.class_file([images, path]) is None:
            continue
        found = _sniffed(labels)
        if found and _has_image(images):
            return True
    return False


def _plain_files(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return [
            folder / entry.name for entry in entries if not is_ignored(entry.name) and not kind_of(entry.path)
        ]


def _folders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(
            folder / entry.name for entry in entries if not is_ignored(entry.name) and is_folder(entry)
        )


def _pairs(root: Path) -> list[tuple[Path, Path]]:
    """Folders of images and of their labels: images/ beside labels/, here or in splits, or one for both."""
    bases = [root, *(folder for folder in _folders(root) if folder.name.lower() in SPLITS)]
    found = [(base / "images", base / "labels") for base in bases]
    pairs = [pair for pair in found if pair[0].is_dir() and pair[1].is_dir()]
    return pairs or [(base, base) for base in [*bases, root / "obj_train_data"] if base.is_dir()]


def _sniffed(labels: Path) -> bool:
    """Whether the first label files of a folder are of this format."""
    seen = False
    for number, file in enumerate(_walk(str(labels), lambda name: name.lower().endswith(".txt"))):
        if number >= _SNIFFED:
            break
        if Path(file).name.lower() in ("classes.txt", "names.txt", "train.txt", "val.txt", "test.txt"):
            continue
        lines = [line.split() for line in lines_of(head_of(file, 4096))[:3]]
        first = next((tokens for tokens in lines if tokens), None)
        if first is not None and (parsed(first).number is None or len(first) < 5):
            return False
        seen = True
    return seen


def _has_image(folder: Path) -> bool:
    return next(_walk(str(folder), is_image), None) is not None


def _walk(folder: str, wanted: Callable[[str], bool], above: tuple[str, ...] = ()) -> Iterator[str]:
    """The files below a folder whose names are wanted, in the order of names."""
    above = (*above, os.path.realpath(folder))
    folders = []
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in found:
        if is_ignored(entry.name):
            continue
        if is_folder(entry):
            if not entry.is_symlink() or os.path.realpath(entry.path) not in above:
                folders.append(entry.path)
        elif wanted(entry.name):
            check_name(entry.name, Path(folder))
            yield entry.path
    for each in folders:
        check_name(os.path.basename(each), Path(folder))  # noqa: PTH119
        yield from _walk(each, wanted, above)


# The layout


def layout_of(start: Path, options: Mapping[str, str]) -> Layout:
    """Find the images, their label files and the class list.

    Args:
        start: folder of the dataset.
        options: those of the format.

    Raises:
        FormatError: no images or no label files.
        InputError: an unknown option, or one that names what isn't there.
    """
    for key in options:
        if key not in OPTIONS:
            raise InputError(f"The format 'yolo' has no option {key!r}; it has {', '.join(OPTIONS)}.")
    config = _yolo_names.config_of(start, options.get("config"))
    found = Layout(config=config)
    base = start
    if config.splits:
        base = _from_config(found, start, options)
    else:
        _from_folders(found, start, options)
    if not found.images:
        raise FormatError(
            "No images were found.",
            where=config.file or start,
            fix="Say with the option images which folder the splits are relative to.",
        )
    _find_labels(found, start, base, options)
    _find_names(found, start, options)
    return found


def _option_folder(start: Path, options: Mapping[str, str], key: str) -> Path | None:
    if key not in options:
        return None
    folder = Path(os.path.normpath(start / options[key]))
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder} for the option {key}.", where=start)
    return folder


def _from_config(found: Layout, start: Path, options: Mapping[str, str]) -> Path:
    """Add the images of the splits; return the folder that they are relative to."""
    config = found.config
    assert config.file is not None
    own = config.file.parent
    said = Path(os.path.normpath(own / config.path.replace("\\", "/")))
    chosen = _option_folder(start, options, "images")
    bases = [chosen] if chosen else [said, own, own.parent, own / said.name, own.parent / said.name]
    entries = [entry for each in config.splits.values() for entry in each]
    bases = list(dict.fromkeys(bases))
    counts = [sum(_entry(base, entry) is not None for entry in entries) for base in bases]
    base = bases[counts.index(max(counts))]
    if not max(counts):
        shown = ", ".join(str(each) for each in bases)
        raise FormatError(
            f"None of the splits' folders is there: {', '.join(entries)}; looked for below {shown}.",
            where=config.file,
            fix="Correct path, train and val, or say with the option images what they are relative to.",
        )
    if base != said:
        message = f"path is {config.path or '.'!r}, and the images are below {os.path.relpath(base, own)!r}."
        found.notes.append(("place of the images", message, True))
    seen: dict[str, int] = {}
    for split, texts in config.splits.items():
        for text in texts:
            place = _entry(base, text)
            if place is None:
                found.notes.append(("split missing", f"The {split} split {text} isn't there.", False))
            elif place.is_dir():
                for file in _walk(str(place), is_image):
                    _add(found, seen, Image(path=file, label="", split=split))
            else:
                _from_list(found, seen, place, base, split)
    return base


def _entry(base: Path, text: str) -> Path | None:
    """What a split says: a folder or a list; some exporters begin with a ``../`` that leads nowhere."""
    plain = text.replace("\\", "/")
    for each in (plain, plain.removeprefix("../")):
        place = Path(os.path.normpath(base / each))
        if place.is_dir() or (place.suffix.lower() in _LISTS and place.is_file()):
            return place
    return None


def _from_list(found: Layout, seen: dict[str, int], file: Path, base: Path, split: str | None) -> None:
    """Add the images that a list names, one a line, relative to the list's folder or to the dataset."""
    missing: list[str] = []
    again: list[str] = []
    own: set[str] = set()
    for number, line in enumerate(lines_of(content_of(file)), start=1):
        text = line.decode("utf-8", errors="replace").strip().replace("\\", "/")
        if not text:
            continue
        places = [os.path.normpath(folder / text) for folder in (file.parent, base)]
        path = next((place for place in places if os.path.isfile(place)), None)  # noqa: PTH113 - once an image
        if path is None:
            missing.append(text)
            path = places[0]
        if path in own:
            again.append(f"line {number}: {text}")
        own.add(path)
        _add(found, seen, Image(path=path, label="", split=split, listed=((file, number),)))
    if missing:
        message = f"{file.name} names {len(missing)} images that aren't there, such as {missing[0]}."
        found.notes.append(("image file missing", message, False))
    if again:
        message = f"{file.name} names {len(again)} images again, such as {again[0]}."
        found.notes.append(("image listed twice", message, False))


def _add(found: Layout, seen: dict[str, int], image: Image) -> None:
    """Add an image, or to one that another split named before the line that names it here."""
    if image.path not in seen:
        seen[image.path] = len(found.images)
        found.images.append(image)
        return
    known = found.images[seen[image.path]]
    if image.listed:
        found.images[seen[image.path]] = Image(
            path=known.path, label="", split=known.split, listed=(*known.listed, *image.listed)
        )
    if known.split != image.split:
        found.again.append(image.path)


def _from_folders(found: Layout, start: Path, options: Mapping[str, str]) -> None:
    """Add the images of folders that no ``data.yaml`` describes."""
    chosen = _option_folder(start, options, "images")
    folders = [chosen] if chosen else [pair[0] for pair in _pairs(start)]
    flat = folders[:1] == [start]
    seen: dict[str, int] = {}
    for folder in folders:
        outer = folder.parent.name if folder.name == "images" else folder.name
        for file in _walk(str(folder), is_image):
            inner = Path(file).relative_to(folder).parts[0]
            split = (
                outer
                if outer.lower() in SPLITS and folder != start and folder.parent != start.parent
                else None
            )
            if split is None and inner.lower() in SPLITS:
                split = inner
            if not flat or folder == start:
                _add(found, seen, Image(path=file, label="", split=split))


def _find_labels(found: Layout, start: Path, base: Path, options: Mapping[str, str]) -> None:
    """Fill in the label file of each image."""
    chosen = _option_folder(start, options, "labels")
    by_folder: dict[str, list[int]] = {}
    for number, image in enumerate(found.images):
        by_folder.setdefault(os.path.dirname(image.path), []).append(number)  # noqa: PTH120 - once an image
    places = {folder: _label_folders(Path(folder), start, base, chosen) for folder in by_folder}
    listed = {place: _texts_in(place) for place in {each for own in places.values() for each in own}}
    counts: dict[str, list[int]] = {}
    for folder, numbers in by_folder.items():
        stems = [_stem(found.images[number].path) for number in numbers]
        counts[folder] = [sum(stem in listed[place] for stem in stems) for place in places[folder]]
    totals = [sum(own) for own in zip(*counts.values(), strict=True)]
    usual = totals.index(max(totals))
    if not totals[usual]:
        raise FormatError(
            f"None of the {len(found.images)} images has a label file; looked in "
            f"{', '.join(sorted(listed))}.",
            where=found.config.file or start,
            fix="A label file has the name of its image with the ending .txt; say with the option "
            "labels where they are.",
        )
    taken = {own[usual] for own in places.values()}
    for folder, numbers in by_folder.items():
        place = places[folder][usual]
        if not counts[folder][usual]:
            others = zip(places[folder], counts[folder], strict=True)
            place = next((each for each, n in others if n and each not in taken), place)
        names = listed[place]
        for number in numbers:
            image = found.images[number]
            stem = _stem(image.path)
            label = f"{place}/{names.get(stem, stem + '.txt')}"
            found.images[number] = Image(path=image.path, label=label, split=image.split, listed=image.listed)
        found.texts.update(f"{place}/{name}" for name in names.values())


def _label_folders(folder: Path, start: Path, base: Path, chosen: Path | None) -> list[str]:
    """The folders where the labels of the images of a folder may be, as many for each folder."""
    inner = folder.relative_to(base).parts if folder.is_relative_to(base) else ()
    without = tuple(part for part in inner if part.lower() != "images")
    if chosen is not None:
        return [str(each) for each in (chosen.joinpath(*without), chosen.joinpath(*without[1:]), chosen)]
    parts = folder.parts
    last = max((n for n, part in enumerate(parts) if part.lower() == "images"), default=None)
    beside = folder if last is None else Path(*parts[:last], "labels", *parts[last + 1 :])
    return [str(each) for each in (beside, start.joinpath("labels", *without), start / "labels", folder)]


def _texts_in(folder: str) -> dict[str, str]:
    """Label files of a folder by their stems."""
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - names alone
    except (OSError, ValueError):  # a list may say anything
        return {}
    lists = {"classes.txt", "names.txt", "class_names.txt", "predefined_classes.txt"}
    texts = [name for name in names if name.lower().endswith(".txt") and name.lower() not in lists]
    return {_stem(name): name for name in texts if not is_ignored(name)}


def _stem(path: str) -> str:
    return os.path.splitext(path.rpartition("/")[2])[0]  # noqa: PTH122 - once an image


def _find_names(found: Layout, start: Path, options: Mapping[str, str]) -> None:
    config = found.config
    if "names" in options:
        found.names_file = Path(os.path.normpath(start / options["names"]))
        if not found.names_file.is_file():
            raise InputError(f"There is no file {found.names_file} for the option names.", where=start)
    elif config.names:
        found.names, found.names_file = config.names, config.file
        return
    elif config.names_file is not None and (start / config.names_file).is_file():
        found.names_file = start / config.names_file
    else:
        labels = {str(Path(image.label).parent) for image in found.images[:1000]}
        folders = [
            start,
            start / "labels",
            *map(Path, sorted(labels)),
            *(Path(each).parent for each in labels),
        ]
        found.names_file = _yolo_names.class_file(folders)
    if found.names_file is not None:
        found.names = _yolo_names.read_class_file(found.names_file)


def relisted(files: Sequence[tuple[Path, int]]) -> dict[Path, set[int]]:
    """Lines to take out of lists, by list."""
    found: dict[Path, set[int]] = {}
    for file, number in files:
        found.setdefault(file, set()).add(number)
    return found
