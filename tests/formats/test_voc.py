from __future__ import annotations

import contextlib
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from object_fixes import apply, contents, of_image, of_object, write_image

from dataaudit import fix, formats, journal
from dataaudit.errors import ConflictError, DataAuditError, FormatError, InputError
from dataaudit.types import Locator, Tables

GOLDEN = Path(__file__).parent.parent / "data" / "voc"
BOX = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>20</ymax></bndbox>"
CAT = f"<object><name>cat</name>{BOX}</object>"


def annotation(*inner: str) -> str:
    return f"<annotation>{''.join(inner)}</annotation>"


def dataset(root: Path, content: str | bytes, name: str = "a") -> Path:
    """One image with that annotation file, and another with a cat."""
    for stem, text in ((name, content), ("z", annotation(CAT))):
        write_image(root / f"images/{stem}.png")
        (root / "annotations").mkdir(exist_ok=True)
        data = text.encode() if isinstance(text, str) else text
        (root / f"annotations/{stem}.xml").write_bytes(data)
    return root


def kinds(tables: Tables) -> list[str]:
    return [problem.kind for problem in tables.problems]


def after(root: Path, op: str, new: str | None = None, box: tuple[float, ...] | None = None) -> bytes:
    """The bytes of the first annotation file after a fix of its first object, or an add."""
    tables = formats.read(root, format="voc")
    if op == "add":
        apply(tables, of_image(tables, tables.images.index[0], "add", new, box))
    else:
        apply(tables, of_object(tables, str(tables.labels.index[0]), op, new, box))
    return (root / tables.images["locator"].iloc[0].file).read_bytes()


def test_objects_flags_sizes_and_splits_of_the_golden_folder() -> None:
    tables = formats.read(GOLDEN)
    rows = tables.labels.drop(columns="locator").to_numpy().tolist()
    assert tables.labels.index.tolist() == [
        "JPEGImages/000001.png:1", "JPEGImages/000001.png:2", "JPEGImages/000002.png:1",
        "JPEGImages/000002.png:2", "JPEGImages/000003.png:1", "JPEGImages/000003.png:2",
    ]  # fmt: skip
    assert rows[:3] == [
        ["JPEGImages/000001.png", "person", "box", 5, 4, 21, 20, False, False, False, True, True],
        ["JPEGImages/000001.png", "dog", "box", 30, 10, 46, 31, False, False, True, False, False],
        [
            "JPEGImages/000002.png",
            "cat & dog",
            "box",
            6.5,
            4,
            22.25,
            20.75,
            False,
            False,
            False,
            False,
            False,
        ],
    ]
    assert [str(each) for each in tables.labels["locator"][:2]] == [
        "Annotations/000001.xml:1", "Annotations/000001.xml:2",
    ]  # fmt: skip
    assert tables.images["split"].tolist() == ["train", "train", "val", None]
    assert tables.images["declared_width"].fillna(-1).tolist() == [48, 48, -1, -1]
    assert tables.classes == ("cat & dog", "dog", "größe", "person", "vélo")
    assert kinds(tables) == ["image without annotation file"]


def test_parts_of_an_object_are_no_objects() -> None:
    tables = formats.read(GOLDEN)
    assert "head" not in tables.classes
    assert tables.labels["x1"].iloc[0] == 5


@pytest.mark.parametrize(
    ("annotations", "images"),
    [
        ("Annotations/{}.xml", "JPEGImages/{}.png"),
        ("VOCdevkit/VOC2007/Annotations/{}.xml", "VOCdevkit/VOC2007/JPEGImages/{}.png"),
        ("annotations/{}.xml", "images/{}.png"),
        ("annotations/xmls/{}.xml", "images/{}.png"),
        ("labels/{}.xml", "data/{}.png"),
        ("annotations/train/{}.xml", "images/train/{}.png"),
        ("train/annotations/{}.xml", "train/images/{}.png"),
        ("train/{}.xml", "train/{}.png"),
        ("{}.xml", "{}.png"),
        ("annotations/{}.xml", "{}.png"),
        ("{}.xml", "images/{}.png"),
        ("somewhere/{}.xml", "else/{}.png"),
    ],
)
def test_the_layouts_that_are_known_without_being_told(tmp_path: Path, annotations: str, images: str) -> None:
    for name in "ab":
        write_image(tmp_path / images.format(name))
        file = tmp_path / annotations.format(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(annotation(CAT))
    tables = formats.read(tmp_path)
    assert tables.source is not None
    assert tables.source.format == "voc"
    assert tables.labels["sample_id"].tolist() == [images.format("a"), images.format("b")]
    assert tables.images["split"].tolist() == ["train" if "train" in images else None] * 2
    assert tables.problems == ()


def test_folders_named_by_split_each_have_their_own_files(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        write_image(tmp_path / split / "a.png")
        (tmp_path / split / "a.xml").write_text(annotation(CAT.replace("cat", split)))
    tables = formats.read(tmp_path)
    assert tables.labels["name"].tolist() == ["train", "valid"]
    assert tables.images["split"].tolist() == ["train", "valid"]


def test_named_folders_are_taken_as_they_are_named(tmp_path: Path) -> None:
    for kind in ("left", "right"):
        write_image(tmp_path / kind / "a.png")
        (tmp_path / f"of_{kind}").mkdir()
        (tmp_path / f"of_{kind}/a.xml").write_text(annotation(CAT.replace("cat", kind)))
    tables = formats.read(tmp_path, options={"images": "right", "annotations": "of_right"})
    assert tables.labels.index.tolist() == ["right/a.png:1"]
    with pytest.raises(InputError, match="no folder 'middle'"):
        formats.read(tmp_path, options={"images": "middle"})
    with pytest.raises(InputError, match="no option 'image'"):
        formats.read(tmp_path, options={"image": "right"})


def test_masks_beside_the_images_are_no_samples(tmp_path: Path) -> None:
    root = Path(shutil.copytree(GOLDEN, tmp_path / "voc"))
    write_image(root / "SegmentationClass/000001.png")
    tables = formats.read(root)
    assert len(tables.images) == 4
    assert "folder of images without annotations" in kinds(tables)


def test_an_image_in_two_splits_counts_for_the_first_and_is_reported(tmp_path: Path) -> None:
    root = Path(shutil.copytree(GOLDEN, tmp_path / "voc"))
    (root / "ImageSets/Main/val.txt").write_text("000003\n000002\n")
    tables = formats.read(root)
    [problem] = [each for each in tables.problems if each.kind == "image in two splits"]
    assert str(problem.locator) == "ImageSets/Main/val.txt:2"
    assert tables.images["split"].iloc[1] == "train"


@pytest.mark.parametrize(
    ("content", "kind", "says"),
    [
        (
            "<annotation><object></annotation>",
            "unreadable annotation file",
            r"annotations/a\.xml:1:23: .*mismatched",
        ),
        ("", "unreadable annotation file", "no element found"),
        ("<annotations/>", "unreadable annotation file", "expected 'annotation'"),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', "unreadable annotation file", "klingon"),
        ('<?xml version="1.0" encoding="utf-7"?><annotation/>', "unreadable annotation file", "unknown"),
        (
            "<!DOCTYPE a [<!ENTITY e 'x'>]><annotation>&e;</annotation>",
            "unreadable annotation file",
            "entity 'e'",
        ),
        ("<annotation>&e;</annotation>", "unreadable annotation file", "undefined entity"),
        (annotation(CAT.replace("cat", " ")), "object without class", "object 1 has no class"),
        (annotation(CAT.replace("<name>cat</name>", "")), "object without class", "no class"),
        (annotation(CAT.replace("cat", "cat ")), "space around class", "'cat '"),
        (annotation("<object><name>cat</name></object>"), "unreadable box", "no <bndbox>"),
        (annotation(CAT.replace("30", "wide")), "unreadable box", "<xmax> is 'wide'"),
        (annotation(CAT.replace("<ymin>2</ymin>", "")), "unreadable box", "no <ymin>"),
        (annotation(CAT.replace("30", "nan")), "unreadable box", "<xmax> is 'nan'"),
        (annotation(CAT.replace("30", "1e999")), "unreadable box", "<xmax> is '1e999'"),
        (annotation("<size><width>x</width></size>", CAT), "unreadable size", "'x'"),
        (annotation("<size><width>1.5</width></size>", CAT), "unreadable size", "'1.5'"),
        (annotation("<filename>b.png</filename>", CAT), "file name differs", "'b.png'"),
        (annotation("<filename>z.png</filename>", CAT), "another image named", "'z.png'"),
    ],
)
def test_what_cannot_be_used_is_reported_and_the_rest_is_read(
    tmp_path: Path, content: str, kind: str, says: str
) -> None:
    tables = formats.read(dataset(tmp_path / "d", content))
    [problem] = tables.problems
    assert problem.kind == kind
    assert re.search(says, problem.message), problem.message
    assert len(tables.images) == 2
    assert "cat" in tables.classes


def test_of_a_box_with_a_corner_that_cannot_be_read_the_others_are_kept(tmp_path: Path) -> None:
    tables = formats.read(dataset(tmp_path / "d", annotation(CAT.replace("30", "wide"))))
    assert tables.labels[["x1", "y1", "y2"]].iloc[0].tolist() == [1, 2, 20]
    assert tables.labels["x2"].isna().tolist() == [True, False]


def test_an_annotation_file_without_its_image_is_reported(tmp_path: Path) -> None:
    root = dataset(tmp_path / "d", annotation(CAT))
    (root / "images/a.png").unlink()
    tables = formats.read(root)
    assert kinds(tables) == ["annotation file without image"]
    assert tables.images.index.tolist() == ["images/z.png"]


def test_the_image_that_a_file_names_counts_where_none_has_its_own_name(tmp_path: Path) -> None:
    root = dataset(tmp_path / "d", annotation("<filename>c:\\photos\\b.png</filename>", CAT))
    (root / "images/a.png").rename(root / "images/b.png")
    tables = formats.read(root)
    assert tables.labels["sample_id"].tolist() == ["images/b.png", "images/z.png"]
    assert tables.problems == ()


def test_two_files_for_one_image_and_two_images_for_one_file_are_reported(tmp_path: Path) -> None:
    root = dataset(tmp_path / "d", annotation("<filename>a.jpg</filename>", CAT))
    write_image(root / "images/a.jpg")
    (root / "annotations/y.xml").write_text(annotation("<filename>z.png</filename>", CAT))
    tables = formats.read(root)
    assert kinds(tables) == ["two images for one annotation file", "two annotation files for one image"]
    assert tables.images.index.tolist() == ["images/a.jpg", "images/z.png"]


def test_no_file_that_can_be_read_is_an_error(tmp_path: Path) -> None:
    root = dataset(tmp_path / "d", "<annotation>")
    (root / "annotations/z.xml").write_text("<annotation")
    with pytest.raises(
        FormatError, match=r"None of the 2 annotation files can be read\. annotations/a\.xml:1:13"
    ):
        formats.read(root, format="voc")


def test_annotation_files_without_any_image_say_where_images_are_looked_for(tmp_path: Path) -> None:
    root = dataset(tmp_path / "d", annotation(CAT))
    with pytest.raises(FormatError, match="Give the folder that holds both"):
        formats.read(root / "annotations", format="voc")
    with pytest.raises(FormatError, match="expected the folder"):
        formats.read(root / "annotations/a.xml", format="voc")
    with pytest.raises(FormatError, match="no such file"):
        formats.read(root / "nowhere", format="voc")
    shutil.move(root / "images", root / "pictures")
    for file in (root / "pictures").iterdir():
        file.rename(file.with_stem(file.stem + "_1"))
    with pytest.raises(FormatError, match="None of the 2 annotation files has its image"):
        formats.read(root)


def test_a_billion_laughs_and_an_endless_depth_end_quickly(tmp_path: Path) -> None:
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    root = dataset(tmp_path / "d", f'<!DOCTYPE l [<!ENTITY l0 "lol">{laughs}]><annotation>&l9;</annotation>')
    assert kinds(formats.read(root)) == ["unreadable annotation file"]
    (root / "annotations/a.xml").write_text("<annotation>" + "<object>" * 100_000)
    assert kinds(formats.read(root)) == ["unreadable annotation file"]


ENCODED = annotation(CAT.replace("cat", "vélo")).replace("><", ">\r\n  <")


@pytest.mark.parametrize(
    ("encoding", "declared", "mark", "new"),
    [
        ("utf-8", "utf-8", b"\xef\xbb\xbf", "猫"),
        ("utf-8", "utf-16", b"", "猫"),
        ("utf-16-le", "utf-16", b"\xff\xfe", "猫"),
        ("utf-16-be", "utf-16", b"\xfe\xff", "猫"),
        ("utf-16-le", "utf-16", b"", "猫"),
        ("latin-1", "ISO-8859-1", b"", "&#29483;"),
        ("cp1252", "windows-1252", b"", "&#29483;"),
        ("gb18030", "GB18030", b"", "猫"),
    ],
)
def test_the_encoding_of_a_file_stays(
    tmp_path: Path, encoding: str, declared: str, mark: bytes, new: str
) -> None:
    text = f'<?xml version="1.0" encoding="{declared}"?>\r\n{ENCODED}'
    root = dataset(tmp_path / "d", mark + text.encode(encoding))
    before = contents(root)
    assert formats.read(root).labels["name"].tolist() == ["vélo", "cat"]
    assert after(root, "relabel", "猫") == mark + text.replace("vélo", new).encode(encoding)
    assert formats.read(root).labels["name"].tolist() == ["猫", "cat"]
    fix.undo(root)
    assert contents(root) == before


@pytest.mark.parametrize(
    ("name", "new", "written"),
    [
        ("<name>cat</name>", "dog", "<name>dog</name>"),
        ("<name> cat\n</name>", "dog", "<name> dog\n</name>"),
        ("<name lang='en'>cat</name>", "a<b", "<name lang='en'>a&lt;b</name>"),
        ("<name>c&amp;t</name>", "c&d", "<name>c&amp;d</name>"),
        ("<name><![CDATA[cat]]></name>", "a<b", "<name><![CDATA[a<b]]></name>"),
        ("<name><![CDATA[cat]]></name>", "a]]>b", "<name>a]]&gt;b</name>"),
        ("<name>c<!-- really --></name>", "dog", "<name>dog<!-- really --></name>"),
        (
            "<name><!-- a --><?b c?>ca<![CDATA[t]]></name>",
            "dog",
            "<name><!-- a --><?b c?>dog<![CDATA[]]></name>",
        ),
    ],
)
def test_a_new_class_is_written_into_the_place_of_the_old_one(
    tmp_path: Path, name: str, new: str, written: str
) -> None:
    content = annotation("<!-- <object/> -->", CAT.replace("<name>cat</name>", name))
    root = dataset(tmp_path / "d", content)
    assert after(root, "relabel", new).decode() == content.replace(name, written)


@pytest.mark.parametrize(
    ("box", "written"),
    [
        ((1, 2, 30, 20), "<xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>20</ymax>"),
        ((1.4, 2, 28.6, 20), "<xmin>1</xmin><ymin>2</ymin><xmax>29</xmax><ymax>20</ymax>"),
        ((-0.2, 2, 30, 20), "<xmin>0</xmin><ymin>2</ymin><xmax>30</xmax><ymax>20</ymax>"),
    ],
)
def test_a_move_in_a_file_of_whole_numbers_writes_whole_numbers(
    tmp_path: Path, box: tuple[float, ...], written: str
) -> None:
    content = annotation(CAT)
    root = dataset(tmp_path / "d", content)
    old = "<xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>20</ymax>"
    assert after(root, "move", None, box).decode() == content.replace(old, written)


def test_a_move_mends_a_corner_that_cannot_be_read(tmp_path: Path) -> None:
    root = dataset(tmp_path / "d", annotation(CAT.replace("30", "wide")))
    assert after(root, "move", None, (1, 2, 28, 20)).decode() == annotation(CAT.replace("30", "28"))


@pytest.mark.parametrize(
    ("outline", "geometry", "box"),
    [
        (
            "<polygon><x1>3</x1><y1>4</y1><x2>9</x2><y2>5</y2><x3>6</x3><y3>8</y3></polygon>",
            "polygon",
            [3, 4, 9, 8],
        ),
        ("<polygon><pt><x>3</x><y>4</y></pt><pt><x>9</x><y>8</y></pt></polygon>", "polygon", [3, 4, 9, 8]),
        (
            "<robndbox><cx>10</cx><cy>10</cy><w>4</w><h>2</h><angle>0.0</angle></robndbox>",
            "rotated",
            [8, 9, 12, 11],
        ),
    ],
)
def test_outlines_have_a_bounding_box_and_cannot_be_moved(
    tmp_path: Path, outline: str, geometry: str, box: list[float]
) -> None:
    root = dataset(tmp_path / "d", annotation(f"<object><name>cat</name>{outline}</object>"))
    tables = formats.read(root)
    first = str(tables.labels.index[0])
    assert tables.labels["geometry"].iloc[0] == geometry
    assert tables.labels[["x1", "y1", "x2", "y2"]].iloc[0].tolist() == box
    with pytest.raises(InputError, match=f"The object is a {geometry}; only a box"):
        formats.patch(tables.source, [of_object(tables, first, "move", None, (1, 2, 3, 4))])
    apply(tables, of_object(tables, first, "relabel", "dog"))
    assert formats.read(root).labels["name"].tolist() == ["dog", "cat"]


LINES = "<annotation>\n\t<a/>\n\t<object>\n\t\t<name>cat</name>\n\t</object>\n\t<b/>\n</annotation>\n"


@pytest.mark.parametrize(
    ("before", "left"),
    [
        (LINES, "<annotation>\n\t<a/>\n\t<b/>\n</annotation>\n"),
        (LINES.replace("\n", "\r\n"), "<annotation>\r\n\t<a/>\r\n\t<b/>\r\n</annotation>\r\n"),
        (LINES.replace("\n", "\r"), "<annotation>\r\t<a/>\r\t<b/>\r</annotation>\r"),
        (
            "<annotation><a/><object><name>cat</name></object><b/></annotation>",
            "<annotation><a/><b/></annotation>",
        ),
        (
            "<annotation>\n<object><name>cat</name></object> <b/>\n</annotation>",
            "<annotation>\n <b/>\n</annotation>",
        ),
    ],
)
def test_an_object_leaves_with_the_lines_that_it_has_for_itself(
    tmp_path: Path, before: str, left: str
) -> None:
    assert after(dataset(tmp_path / "d", before), "remove").decode() == left


def test_a_new_object_is_like_the_last_one_without_what_is_its_own(tmp_path: Path) -> None:
    old = (
        "  <object id='3'>\n    <!-- first -->\n    <difficult>1</difficult>\n    <name>cat</name>\n"
        "    <bndbox>\n      <xmax>9.50</xmax> <xmin>1.00</xmin> <ymax>8.00</ymax> <ymin>2.00</ymin>\n"
        "    </bndbox>\n"
        "    <part><name>head</name></part>\n    <pose>Left</pose>\n  </object>\n"
    )
    new = (
        "  <object>\n    <difficult>0</difficult>\n    <name>dog</name>\n"
        "    <bndbox>\n      <xmax>7.13</xmax>\n      <xmin>5.00</xmin>\n      <ymax>8.00</ymax>\n"
        "      <ymin>6.00</ymin>\n    </bndbox>\n    <pose>Unspecified</pose>\n  </object>\n"
    )
    root = dataset(tmp_path / "d", f"<annotation>\n{old}</annotation>\n")
    assert after(root, "add", "dog", (5, 6, 7.126, 8)).decode() == f"<annotation>\n{old}{new}</annotation>\n"


@pytest.mark.parametrize(
    ("before", "between"),
    [
        ("<annotation/>", ("<annotation>", "</annotation>")),
        ("<annotation></annotation>", ("<annotation>", "</annotation>")),
        ("<annotation>\n\t<a>1</a>\n</annotation>", ("<annotation>\n\t<a>1</a>\n\t", "\n</annotation>")),
        ("<annotation>\n</annotation>", ("<annotation>\n\t", "\n</annotation>")),
        ('<v:annotation xmlns:v="u"/>', ('<v:annotation xmlns:v="u">', "</v:annotation>")),
    ],
)
def test_a_first_object_is_like_those_of_another_file(
    tmp_path: Path, before: str, between: tuple[str, str]
) -> None:
    new = CAT.replace("cat", "dog").replace("30", "31")
    root = dataset(tmp_path / "d", before)
    assert after(root, "add", "dog", (1, 2, 31, 20)).decode() == new.join(between)


def test_an_image_without_a_file_gets_one_like_those_of_the_others(tmp_path: Path) -> None:
    root = Path(shutil.copytree(GOLDEN, tmp_path / "voc"))
    before, tables = contents(root), formats.read(root)
    apply(tables, of_image(tables, "JPEGImages/000004.png", "add", "dog", (1, 2, 30.4, 20)))
    new = (root / "Annotations/000004.xml").read_text()
    old = (root / "Annotations/000001.xml").read_text().splitlines(keepends=True)
    assert new.splitlines(keepends=True)[:12] == [
        line.replace("000001", "000004")
        .replace("VOC2012", "JPEGImages")
        .replace("The VOC2007 Database", "Unknown")
        for line in old[:12]
    ]
    assert new.endswith("\t\t<difficult>0</difficult>\n\t</object>\n</annotation>\n")
    assert formats.read(root).labels.index[-1] == "JPEGImages/000004.png:1"
    fix.undo(root)
    assert contents(root) == before


def test_a_file_for_the_only_image_is_as_labelimg_writes_it(tmp_path: Path) -> None:
    write_image(tmp_path / "d/a.png")
    write_image(tmp_path / "d/b.png")
    (tmp_path / "d/a.xml").write_text("<annotation/>")
    tables = formats.read(tmp_path / "d")
    apply(tables, of_image(tables, "b.png", "add", "dog", (1, 2, 30, 20)))
    new = (tmp_path / "d/b.xml").read_text()
    assert "\t<filename>b.png</filename>\n\t<size>\n\t\t<width>48</width>\n\t\t<height>32</height>\n" in new
    assert new.endswith("\t\t\t<ymax>20</ymax>\n\t\t</bndbox>\n\t</object>\n</annotation>\n")
    assert formats.read(tmp_path / "d").problems == ()


def test_an_image_leaves_with_its_file_for_the_state(tmp_path: Path) -> None:
    root = Path(shutil.copytree(GOLDEN, tmp_path / "voc"))
    tables = formats.read(root)
    apply(tables, of_image(tables, "JPEGImages/000001.png", "drop"))
    dropped = tmp_path / ".dataaudit/voc/dropped"
    assert sorted(contents(dropped)) == []  # below the state
    assert (dropped / "JPEGImages/000001.png").is_file()
    assert (dropped / "Annotations/000001.xml").is_file()
    assert len(formats.read(root).images) == 3


def test_a_drop_that_knows_only_the_image_finds_its_file(tmp_path: Path) -> None:
    root = Path(shutil.copytree(GOLDEN, tmp_path / "voc"))
    tables = formats.read(root)
    drop = of_image(tables, "JPEGImages/000001.png", "drop")
    moves = formats.patch(tables.source, [replace(drop, locator=Locator(file=drop.sample_id))])
    assert [move.src.name for move in moves if isinstance(move, journal.Move)] == ["000001.png", "000001.xml"]


def test_a_file_that_was_broken_since_is_left_alone(tmp_path: Path) -> None:
    root = dataset(tmp_path / "d", annotation(CAT))
    tables = formats.read(root)
    (root / "annotations/a.xml").write_text("<annotation>")
    with pytest.raises(FormatError, match=r"no element found"):
        formats.patch(tables.source, [of_object(tables, str(tables.labels.index[0]), "remove")])
    (root / "annotations/a.xml").unlink()
    with pytest.raises(ConflictError, match="gone"):
        formats.patch(tables.source, [of_object(tables, str(tables.labels.index[0]), "remove")])


DAMAGES = {
    "cut": lambda content, at: content[:at],
    "without": lambda content, at: content[:at] + content[at + 1 :],
    "zero": lambda content, at: content[:at] + b"\0" + content[at + 1 :],
    "opened": lambda content, at: content[:at] + b"<" + content[at + 1 :],
    "high": lambda content, at: content[:at] + b"\xff" + content[at + 1 :],
    "nine": lambda content, at: content[:at] + b"9" + content[at + 1 :],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_damaged_at_any_byte_is_read_or_reported_and_never_fails_otherwise(
    tmp_path: Path, damage: str
) -> None:
    whole = (
        f'<?xml version="1.0" encoding="utf-8"?>\n{annotation("<filename>a.png</filename>", CAT)}'.encode()
    )
    root = dataset(tmp_path / "d", whole)
    file = root / "annotations/a.xml"
    for at in range(len(whole)):
        file.write_bytes(DAMAGES[damage](whole, at))
        tables = formats.read(root, format="voc")
        own = [each for each in tables.labels.index if each.startswith("images/a.png")]
        unread = [each for each in tables.problems if each.locator.file.endswith("a.xml")]
        assert own or unread or b"<object>" not in file.read_bytes()
        for label_id in own:
            with contextlib.suppress(DataAuditError):
                formats.patch(tables.source, [of_object(tables, label_id, "relabel", "dog")])
