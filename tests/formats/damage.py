"""Kinds of damage to the annotation files of objects, each with what has to come of it.

A sound dataset of three images is written in a format and then harmed in one way. What has to come of it:

- ``reported``: an error or a finding that names the place;
- ``harmless``: by the rules of the format nothing is wrong, and the same objects are read;
- ``valid``: a sound file that says something else, such as an empty list of objects.
"""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from object_fixes import write_image

Harm = Callable[[Path], None]
Bytes = Callable[[bytes], bytes]

COCO = """{
"info": {"description": "three images"},
"images": [
{"id": 1, "file_name": "a.png", "width": 48, "height": 32},
{"id": 2, "file_name": "b.png", "width": 48, "height": 32},
{"id": 3, "file_name": "c.png", "width": 48, "height": 32}
],
"annotations": [
{"id": 5, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10.5, 20], "area": 210, "iscrowd": 0},
{"id": 6, "image_id": 2, "category_id": 2, "bbox": [4, 4, 30, 20], "area": 600, "iscrowd": 0},
{"id": 7, "image_id": 3, "category_id": 1, "bbox": [5, 6, 20, 20], "area": 400, "iscrowd": 0}
],
"categories": [
{"id": 1, "name": "cat"},
{"id": 2, "name": "dog"}
]
}
"""
YAML = """path: .
train: images
val:
nc: 2
names:
  0: cat
  1: dog
"""
YOLO = {
    "a": "0 0.250000 0.312500 0.125000 0.205000\n1 0.500000 0.500000 0.250000 0.250000\n",
    "b": "1 0.400000 0.400000 0.200000 0.300000\n",
    "c": "0 0.512345 0.600000 0.100000 0.100000\n",
}
VOC = """<?xml version="1.0" encoding="utf-8"?>
<annotation>
  <folder>JPEGImages</folder>
  <filename>{name}.png</filename>
  <size>
    <width>48</width>
    <height>32</height>
    <depth>3</depth>
  </size>
  <object>
    <name>cat</name>
    <difficult>0</difficult>
    <bndbox>
      <xmin>5</xmin>
      <ymin>4</ymin>
      <xmax>21</xmax>
      <ymax>20</ymax>
    </bndbox>
  </object>
</annotation>
"""
KITTI = """Car 0.00 0 -0.20 5.40 4.00 21.73 20.92 1.89 0.48 1.20 1.84 1.47 8.41 0.01
Van 0.00 0 -0.69 30.00 10.37 47.31 31.00 1.60 1.57 3.23 -2.70 1.74 3.68 -1.29
"""
CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><labels><label><name>car</name></label><label><name>dog</name></label></labels></task></meta>
  <image id="0" name="a.png" width="48" height="32">
    <box label="car" occluded="0" xtl="10.50" ytl="2.00" xbr="40.25" ybr="30.00" z_order="0">
    </box>
  </image>
  <image id="1" name="b.png" width="48" height="32">
    <box label="dog" occluded="0" xtl="3.00" ytl="4.10" xbr="20.00" ybr="30.50" z_order="0">
    </box>
  </image>
  <image id="2" name="c.png" width="48" height="32">
    <polygon label="car" occluded="0" points="1.0,2.0;30.0,4.0;20.0,20.0" z_order="0">
    </polygon>
  </image>
</annotations>
"""

NAMES = ("a", "b", "c")
IMAGES = {
    "coco": "images/{}.png",
    "yolo": "images/{}.png",
    "voc": "JPEGImages/{}.png",
    "kitti": "training/image_2/{}.png",
    "cvat": "images/{}.png",
}
FILES: Mapping[str, Mapping[str, str]] = {
    "coco": {"annotations.json": COCO},
    "yolo": {"data.yaml": YAML} | {f"labels/{name}.txt": text for name, text in YOLO.items()},
    "voc": {f"Annotations/{name}.xml": VOC.format(name=name) for name in NAMES},
    "kitti": {f"training/label_2/{name}.txt": KITTI for name in NAMES},
    "cvat": {"annotations.xml": CVAT},
}
FORMATS = tuple(FILES)
TARGETS = (
    ("coco", "annotations.json"),
    ("yolo", "labels/a.txt"),
    ("yolo", "data.yaml"),
    ("voc", "Annotations/a.xml"),
    ("kitti", "training/label_2/a.txt"),
    ("cvat", "annotations.xml"),
)
"""Format and file that is harmed."""


@dataclass(frozen=True, kw_only=True)
class Damage:
    """A way to harm a dataset.

    Attributes:
        format: of the dataset.
        name: a few words.
        harm: harms the sound dataset in the folder that it is given.
        outcome: ``reported``, ``harmless`` or ``valid``.
        place: what the error or a finding has to name.
    """

    format: str
    name: str
    harm: Harm
    outcome: str = "reported"
    place: str = ""

    def __str__(self) -> str:
        return f"{self.format}-{self.name}"


def sound(form: str, root: Path) -> Path:
    """Write a dataset without any damage."""
    for name in NAMES:
        write_image(root / IMAGES[form].format(name))
    for file, text in FILES[form].items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(text.encode())
    return root


def replaced(file: str, old: str, new: str | bytes) -> Harm:
    """Put other text in the place of what stands in a file just once."""

    def harm(root: Path) -> None:
        before = (root / file).read_bytes()
        assert before.count(old.encode()) == 1, (old, before.count(old.encode()))
        after = new if isinstance(new, bytes) else new.encode()
        (root / file).write_bytes(before.replace(old.encode(), after))

    return harm


def rewritten(file: str, change: Bytes) -> Harm:
    """Write a file anew."""

    def harm(root: Path) -> None:
        (root / file).write_bytes(change((root / file).read_bytes()))

    return harm


def in_its_place(file: str, make: Harm) -> Harm:
    """Put something else where a file is."""

    def harm(root: Path) -> None:
        (root / file).unlink()
        make(root / file)

    return harm


# Damage to the bytes of any file

BYTES: Mapping[str, Bytes] = {
    "empty": lambda content: b"",
    "one byte": lambda content: content[:1],
    "a tenth is left": lambda content: content[: len(content) // 10],
    "a half is left": lambda content: content[: len(content) // 2],
    "nine tenths are left": lambda content: content[: len(content) * 9 // 10],
    "the first half is gone": lambda content: content[len(content) // 2 :],
    "nothing but zero bytes": lambda content: bytes(len(content)),
    "a block of zero bytes": lambda content: content[:60] + bytes(40) + content[100:],
    "zero bytes at the end": lambda content: content + bytes(512),
    "random bytes": lambda content: bytes((n * 73 + n // 7 * 31) % 256 for n in range(600)),
    "a picture": lambda content: b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)),
    "gzip": lambda content: gzip.compress(content, mtime=0),
    "blanks alone": lambda content: b" \n\t\n  \n",
    "a page of a web server": lambda content: b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n",
    "a pointer of git-lfs": lambda content: (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
    ),
    "marks of a merge": lambda content: (
        b"<<<<<<< HEAD\n" + content + b"=======\n" + content + b">>>>>>> branch\n"
    ),
    "twice in a row": lambda content: content + content,
    "an invalid byte of UTF-8": lambda content: content[:70] + b"\xff" + content[71:],
    "a control character": lambda content: content[:70] + b"\x07" + content[71:],
    "UTF-16 with a mark": lambda content: content.decode().encode("utf-16"),
    "UTF-16 without a mark": lambda content: content.decode().encode("utf-16-le"),
    "UTF-16 cut within a character": lambda content: content.decode().encode("utf-16")[:-1],
    "UTF-32": lambda content: content.decode().encode("utf-32"),
    "a byte order mark": lambda content: b"\xef\xbb\xbf" + content,
    "two byte order marks": lambda content: b"\xef\xbb\xbf\xef\xbb\xbf" + content,
    "lines that end with CR LF": lambda content: content.replace(b"\n", b"\r\n"),
    "lines that end with CR": lambda content: content.replace(b"\n", b"\r"),
    "no end of the last line": lambda content: content.rstrip(b"\n"),
    "blank lines around": lambda content: b"\n" + content + b"\n \n",
    "words behind the end": lambda content: content + b"the end\n",
    "10,000 brackets": lambda content: b"[" * 10_000,
    "100,000 brackets": lambda content: b'{"annotations": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "100,000 braces": lambda content: b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "10,000 elements in each other": lambda content: b"<annotation>" + b"<a>" * 10_000 + b"</a>" * 10_000,
    "a line of a million characters": lambda content: content + b"9" * 1_000_000 + b"\n",
    "100,000 columns": lambda content: content + b"0 " * 100_000 + b"\n",
}


# Other things where a file should be


def _folder(path: Path) -> None:
    path.mkdir()


def _full_folder(path: Path) -> None:
    write_image(path / "inside.png")


def _broken_link(path: Path) -> None:
    path.symlink_to("nowhere")


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _closed(path: Path) -> None:
    path.write_bytes(b"{}")
    path.chmod(0)


def _link_upwards(path: Path) -> None:
    path.symlink_to("..", target_is_directory=True)


def _nothing(path: Path) -> None:
    assert not path.exists()


PLACES: Mapping[str, Harm] = {
    "missing": _nothing,
    "a folder": _folder,
    "a folder with an image": _full_folder,
    "a broken link": _broken_link,
    "a link to itself": _loop,
    "a link to the folder above": _link_upwards,
    "a pipe": _pipe,
    "a device without end": _device,
} | ({"a file that may not be read": _closed} if os.geteuid() else {})


_FOLDERS = ("a folder", "a folder with an image", "a link to the folder above")

# Damage to pictures and their names


def _of_image(form: str, name: str = "a") -> str:
    return IMAGES[form].format(name)


IMAGE_BYTES: Mapping[str, Bytes] = {
    "an image of 0 bytes": lambda content: b"",
    "half an image": lambda content: content[: len(content) // 2],
    "text in an image": lambda content: b"no picture\n",
    "zero bytes in an image": lambda content: bytes(len(content)),
}
EXTRA_NAMES: Mapping[str, bytes] = {
    "no UTF-8": b"\xff\xfe.png",
    "a new line": b"x\ny.png",
    "quotes": b"x\"y'z.png",
    "an emoji": "\N{CAT}.png".encode(),
    "commas and hashes": b"x,y;#1.png",
    "250 characters": b"x" * 246 + b".png",
    "a line separator": "x\u2028y.png".encode(),
}


def _extra(form: str, name: bytes) -> Harm:
    """A further image of that name, which no annotation is of."""

    def harm(root: Path) -> None:
        folder = os.fsencode((root / _of_image(form)).parent)
        shutil.copyfile(os.fsencode(root / _of_image(form)), os.path.join(folder, name))  # noqa: PTH118 - bytes

    return harm


def _renamed(form: str, new: str) -> Harm:
    def harm(root: Path) -> None:
        image = root / _of_image(form)
        image.rename(image.with_name(new))

    return harm


def _file_above(form: str) -> Harm:
    """A file where the folder of the images should be."""

    def harm(root: Path) -> None:
        folder = (root / _of_image(form)).parent
        shutil.rmtree(folder)
        folder.write_bytes(b"")

    return harm


def _no_images(form: str) -> Harm:
    return lambda root: shutil.rmtree((root / _of_image(form)).parent)


def to_files(outcomes: Mapping[str, str]) -> Iterator[Damage]:
    """What may happen to any file.

    Args:
        outcomes: of those that aren't reported, by ``format file: name`` or, of all files, by name.
    """
    for form, file in TARGETS:
        base = file.rpartition("/")[2]
        kinds: dict[str, Harm] = {name: rewritten(file, change) for name, change in BYTES.items()}
        kinds |= {name: in_its_place(file, make) for name, make in PLACES.items()}
        for name, harm in kinds.items():
            outcome = outcomes.get(f"{form} {base}: {name}", outcomes.get(name, "reported"))
            place = base if name not in ("missing", *_FOLDERS) else base.partition(".")[0]
            yield Damage(format=form, name=f"{base}: {name}", harm=harm, outcome=outcome, place=place)


def to_images(outcomes: Mapping[str, str]) -> Iterator[Damage]:
    """What may happen to any image."""
    for form in FORMATS:
        image = _of_image(form)
        kinds: dict[str, tuple[Harm, str]] = {
            name: (rewritten(image, change), "a.png") for name, change in IMAGE_BYTES.items()
        }
        kinds |= {f"{name} for an image": (in_its_place(image, make), "a.") for name, make in PLACES.items()}
        kinds |= {
            f"a further image named {name}": (_extra(form, text), "") for name, text in EXTRA_NAMES.items()
        }
        kinds["an image in capitals"] = (_renamed(form, "A.png"), "a.")
        kinds["an image of another ending"] = (_renamed(form, "a.jpg"), "a.")
        kinds["no folder of images"] = (_no_images(form), "")
        kinds["a file for the folder of images"] = (_file_above(form), "")
        for name, (harm, place) in kinds.items():
            outcome = outcomes.get(f"{form} {name}", outcomes.get(name, "reported"))
            yield Damage(format=form, name=name, harm=harm, outcome=outcome, place=place)
