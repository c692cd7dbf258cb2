from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest
from object_fixes import apply, of_image, of_object, write_image

from dataaudit import formats
from dataaudit.errors import DataAuditError, FormatError, InputError
from dataaudit.types import Tables

GOLDEN = Path(__file__).parent.parent / "data" / "cvat"
BOX = '<box label="cat" occluded="0" xtl="1.50" ytl="2.00" xbr="30.25" ybr="20.00" z_order="0"/>'
META = "<meta><task><labels><label><name>cat</name><color>#fff</color></label></labels></task></meta>"


def image(*shapes: str, name: str = "a.png", more: str = "") -> str:
    inner = f">{''.join(shapes)}</image>" if shapes else "/>"
    return f'<image id="0" name="{name}" width="48" height="32"{more}{inner}'


def dataset(root: Path, *inner: str) -> Path:
    write_image(root / "images/a.png")
    write_image(root / "images/b.png")
    (root / "annotations.xml").write_text(f"<annotations>{''.join(inner)}</annotations>", encoding="utf-8")
    return root


def kinds(tables: Tables) -> list[str]:
    return [problem.kind for problem in tables.problems]


def after(root: Path, op: str, new: str | None = None, box: tuple[float, ...] | None = None) -> str:
    """The text inside the file after a fix of its first object, or an add to its first image."""
    tables = formats.read(root)
    if op in ("add", "drop"):
        apply(tables, of_image(tables, tables.images.index[0], op, new, box))
    else:
        apply(tables, of_object(tables, str(tables.labels.index[0]), op, new, box))
    text = (root / "annotations.xml").read_text(encoding="utf-8")
    return text.removeprefix("<annotations>").removesuffix("</annotations>")


def test_shapes_flags_and_splits_of_the_golden_folder() -> None:
    tables = formats.read(GOLDEN)
    assert tables.labels.drop(columns=["locator", "sample_id"]).round(6).to_numpy().tolist() == [
        ["car", "box", 10.5, 2, 40.25, 30, False, False, False, True, False],
        ["car", "polygon", 1, 2, 30, 20, False, False, False, False, True],
        ["car", "rotated", 11.375, 1.125, 39.375, 30.875, False, False, False, False, False],
        ["car", "mask", 1, 2, 5, 7, False, False, False, False, False],
        ["dog", "box", 3, 4.1, 20, 30.5, False, False, False, False, True],
    ]
    assert tables.labels.index[2] == "images/a.png:4"
    assert str(tables.labels["locator"].iloc[2]) == "annotations.xml:1/4"
    assert tables.images["split"].tolist() == [None, "Validation", None]
    assert tables.images["declared_width"].tolist() == [48, 48, 48]
    [problem] = tables.problems
    assert (problem.kind, problem.severity) == ("shape passed over", "note")
    assert "1 polyline" in problem.message


def test_the_file_itself_can_be_given() -> None:
    assert formats.read(GOLDEN / "annotations.xml").labels.equals(formats.read(GOLDEN).labels)


@pytest.mark.parametrize(
    ("name", "more", "where"),
    [
        ("a.png", "", "a.png"),
        ("a.png", "", "images/a.png"),
        ("a.png", "", "data/a.png"),
        ("a.png", ' subset="Train"', "images/Train/a.png"),
        ("deep/a.png", "", "images/deep/a.png"),
        ("deep/a.png", "", "images/a.png"),
        ("deep\\a.png", "", "images/deep/a.png"),
    ],
)
def test_images_are_found_where_exports_have_them(tmp_path: Path, name: str, more: str, where: str) -> None:
    write_image(tmp_path / where)
    (tmp_path / "x.xml").write_text(f"<annotations>{image(BOX, name=name, more=more)}</annotations>")
    assert formats.read(tmp_path).images.index.tolist() == [where]


def test_images_are_taken_from_the_folder_that_is_named(tmp_path: Path) -> None:
    root = dataset(tmp_path / "d", image(BOX))
    write_image(root / "others/a.png")
    assert formats.read(root, options={"images": "others"}).images.index.tolist() == ["others/a.png"]
    with pytest.raises(InputError, match="no option 'image'"):
        formats.read(root, options={"image": "others"})


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "", ".", "a\n.png"])
def test_a_name_that_leads_elsewhere_is_no_image(tmp_path: Path, name: str) -> None:
    write_image(tmp_path / "a.png")
    root = dataset(tmp_path / "d", image(BOX, name=name), image(BOX, name="b.png"))
    tables = formats.read(root)
    assert tables.images.index.tolist() in (["images/b.png"], ["images/a.png", "images/b.png"])
    assert tables.images["filepath"].map(lambda path: str(root) in path).all()


@pytest.mark.parametrize(
    ("inner", "kind", "says"),
    [
        ([image(BOX, name="c.png")], "image missing", "'c.png' isn't there; its 1 shapes"),
        ([image(BOX), image(BOX)], "image annotated twice", "image 1 already"),
        ([image(BOX.replace('label="cat"', ""))], "object without class", "no class"),
        ([image(BOX.replace("30.25", "wide"))], "unreadable box", "xbr is 'wide'"),
        ([image(BOX.replace('xbr="30.25"', ""))], "unreadable box", "there is no xbr"),
        ([image(BOX.replace('z_order="0"', 'rotation="x"'))], "unreadable box", "rotation is 'x'"),
        ([image('<polygon label="cat" points="1,2;3"/>')], "unreadable box", "points of the polygon"),
        ([image('<polygon label="cat"/>')], "unreadable box", "points of the polygon"),
        ([image('<mask label="cat" left="1"/>')], "unreadable box", "there is no top"),
        ([META, image(BOX.replace("cat", "dog"))], "class not in the list", "'dog'"),
        ([image(BOX).replace('"48"', '"wide"')], "unreadable size", "'wide'"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_reported_and_the_rest_is_read(
    tmp_path: Path, inner: list[str], kind: str, says: str
) -> None:
    tables = formats.read(dataset(tmp_path / "d", *inner, image(BOX, name="b.png")))
    [problem] = [each for each in tables.problems if each.kind != "images that aren't listed"]
    assert (problem.kind, says in problem.message) == (kind, True), problem
    assert "images/b.png:1" in tables.labels.index


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('<annotations><track id="0"><box frame="0"/></track></annotations>', "CVAT for video"),
        ("<annotations><version>1.1</version></annotations>", "no <image>"),
        (f"<annotations>{image(BOX)}", r"annotations\.xml:1:\d+: .*no element found"),
        (
            f"<annotations>{image(name='c.png')}</annotations>",
            r"None of the 1 images is there, such as c\.png",
        ),
        ("<!DOCTYPE a [<!ENTITY e 'x'>]><annotations><image/></annotations>", "entity 'e'"),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error(tmp_path: Path, content: str, says: str) -> None:
    root = dataset(tmp_path / "d")
    (root / "annotations.xml").write_text(content)
    with pytest.raises(FormatError, match=says):
        formats.read(root)


def test_of_several_files_one_has_to_be_chosen(tmp_path: Path) -> None:
    root = dataset(tmp_path / "d", image(BOX))
    shutil.copy(root / "annotations.xml", root / "more.xml")
    with pytest.raises(FormatError, match=r"several CVAT files: annotations\.xml, more\.xml"):
        formats.read(root)
    assert len(formats.read(root / "more.xml").labels) == 1


def test_a_turned_ellipse_has_the_box_around_it(tmp_path: Path) -> None:
    shape = '<ellipse label="cat" cx="20" cy="10" rx="8" ry="4" rotation="90"/>'
    tables = formats.read(dataset(tmp_path / "d", image(shape)))
    assert tables.labels[["x1", "y1", "x2", "y2"]].iloc[0].tolist() == pytest.approx([16, 2, 24, 18])


@pytest.mark.parametrize("shape", ["polygon", "mask", "rotated"])
def test_what_is_no_upright_box_cannot_be_moved(shape: str) -> None:
    tables = formats.read(GOLDEN)
    label_id = str(tables.labels.index[tables.labels["geometry"] == shape][0])
    with pytest.raises(InputError, match="only an upright box can be moved"):
        formats.patch(tables.source, [of_object(tables, label_id, "move", None, (1, 2, 3, 4))])


def test_a_relabel_changes_one_value_and_a_new_class_is_listed(tmp_path: Path) -> None:
    root = dataset(tmp_path / "d", META, image(BOX))
    listed = META.replace("</label></labels>", '</label><label><name>a &lt; "b"</name></label></labels>')
    assert after(root, "relabel", 'a < "b"') == listed + image(BOX.replace("cat", "a &lt; &quot;b&quot;"))
    assert formats.read(root).classes == ('a < "b"', "cat")


def test_a_class_in_single_quotes_stays_in_them(tmp_path: Path) -> None:
    root = dataset(tmp_path / "d", image(BOX.replace('"cat"', "'cat'")))
    assert after(root, "relabel", "it's") == image(BOX.replace('"cat"', "'it&#39;s'"))


def test_a_move_changes_the_corners_that_change_with_the_decimals_of_the_file(tmp_path: Path) -> None:
    root = dataset(tmp_path / "d", image(BOX))
    assert after(root, "move", None, (1.5, 2.001, 33.333, 20)) == image(BOX.replace("30.25", "33.33"))


def test_an_object_leaves_and_its_image_stays(tmp_path: Path) -> None:
    root = dataset(tmp_path / "d", image(BOX, "<tag label='x'/>"))
    assert after(root, "remove") == image("<tag label='x'/>")
    assert len(formats.read(root).images) == 1


def test_an_image_leaves_the_file_and_its_picture_stays(tmp_path: Path) -> None:
    root = dataset(tmp_path / "d", "\n  ", image(BOX), "\n  ", image(BOX, name="b.png"), "\n")
    assert after(root, "drop") == f"\n  {image(BOX, name='b.png')}\n"
    assert (root / "images/a.png").is_file()


@pytest.mark.parametrize("first", [BOX, "", "<points label='cat' points='1,2'/>"])
def test_a_new_box_is_like_the_others(tmp_path: Path, first: str) -> None:
    new = BOX.replace("cat", "dog").replace("1.50", "5.00").replace("2.00", "6.00").replace("30.25", "7.13")
    root = dataset(tmp_path / "d", image(first) if first else image(), image(BOX, name="b.png"))
    assert after(root, "add", "dog", (5, 6, 7.126, 20)) == image(first + new) + image(BOX, name="b.png")


def test_a_first_box_is_as_cvat_writes_it(tmp_path: Path) -> None:
    root = dataset(tmp_path / "d", "\n  ", image(), "\n")
    assert after(root, "add", "dog", (5, 6, 7.126, 20)) == (
        '\n  <image id="0" name="a.png" width="48" height="32">\n'
        '    <box label="dog" source="manual" occluded="0" xtl="5.00" ytl="6.00" xbr="7.13" ybr="20.00" '
        'z_order="0">\n'
        "    </box>\n  </image>\n"
    )  # fmt: skip


@pytest.mark.parametrize("damage", [None, b"", b"\0", b"<", b"\xff", b"9"])
def test_a_file_damaged_at_any_byte_is_read_or_reported_and_never_fails_otherwise(
    tmp_path: Path, damage: bytes | None
) -> None:
    root = dataset(tmp_path / "d", META, image(BOX), image(BOX, name="b.png"))
    file = root / "annotations.xml"
    whole = file.read_bytes()
    for at in range(len(whole)):
        file.write_bytes(whole[:at] if damage is None else whole[:at] + damage + whole[at + 1 :])
        with contextlib.suppress(DataAuditError):
            tables = formats.read(root, format="cvat")
            for label_id in tables.labels.index:
                formats.patch(tables.source, [of_object(tables, label_id, "relabel", "dog")])
