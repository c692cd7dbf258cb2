from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from trees import folder, git, picture, tree

from dataaudit import version
from dataaudit.errors import ConflictError, InputError


def relabel(root: Path, name: str, old: str, new: str) -> None:
    (root / new).mkdir(exist_ok=True)
    (root / old / name).rename(root / new / name)


def note(root: Path, name: str, line: str) -> None:
    with (root.parent / ".dataaudit" / root.name / name).open("a") as file:
        file.write(line + "\n")


def test_a_first_commit_makes_git_and_dvc_and_the_tag_v1(photos):
    made = version.commit(photos, message="as it came")
    assert (made.name, made.tag, made.message) == ("v1", "photos/v1", "as it came")
    assert made.counts == {"images": 6, "classes": 2, "labels": {"cat": 3, "dog": 3}}
    assert git(photos.parent, "status", "--porcelain") == ""
    assert sorted(git(photos.parent, "ls-files").split()) == [
        ".dataaudit/.dvcignore",
        ".dataaudit/photos/dataset.json",
        ".dataaudit/photos/dvc.yaml",
        ".dataaudit/photos/metrics.json",
        ".dvc/.gitignore",
        ".dvc/config",
        ".dvcignore",
        ".gitignore",
        "photos.dvc",
    ]


def test_versions_are_numbered_and_listed_oldest_first(photos):
    version.commit(photos, message="as it came", summary={"findings": {"LBL001": 2}})
    relabel(photos, "0.png", "cat", "dog")
    version.commit(photos, message="one cat is a dog", summary={"findings": {"LBL001": 1}})
    relabel(photos, "1.png", "cat", "dog")
    version.commit(photos, message="another", tag="final")
    found = version.versions(photos)
    assert [(v.name, v.message) for v in found] == [
        ("v1", "as it came"), ("v2", "one cat is a dog"), ("final", "another"),
    ]  # fmt: skip
    assert [v.counts.get("findings") for v in found] == [{"LBL001": 2}, {"LBL001": 1}, None]


def test_findings_show_in_dvc_metrics_diff(photos):
    version.commit(photos, message="as it came", summary={"findings": {"LBL001": 2}})
    relabel(photos, "0.png", "cat", "dog")
    version.commit(photos, message="one cat is a dog", summary={"findings": {"LBL001": 1}})
    from dataaudit.version import store

    with store.open_repo(photos.parent) as repo:
        changed = repo.metrics.diff("photos/v1", "photos/v2")["diff"][".dataaudit/photos/metrics.json"]
    assert changed["findings.LBL001"] == {"old": 2, "new": 1, "diff": -1}
    assert changed["labels.dog"] == {"old": 3, "new": 4, "diff": 1}


def test_nothing_changed_is_an_error_and_no_commit(photos):
    version.commit(photos, message="as it came")
    head = git(photos.parent, "rev-parse", "HEAD")
    with pytest.raises(InputError, match="Nothing changed since the version v1"):
        version.commit(photos, message="again")
    assert git(photos.parent, "rev-parse", "HEAD") == head


def test_a_commit_leaves_a_dirty_tree_as_it_was(photos):
    root = photos.parent
    git(root, "init", "-q")
    for name in ("staged.txt", "changed.txt", "both.txt"):
        (root / name).write_text("old\n")
    (root / ".gitignore").write_text("*.log\n")
    git(root, "add", "-A", ":!photos")
    git(root, "commit", "-qm", "code")
    (root / "staged.txt").write_text("staged\n")
    (root / "both.txt").write_text("staged\n")
    (root / ".gitignore").write_text("*.log\n*.tmp\n")
    git(root, "add", "staged.txt", "both.txt")
    (root / "both.txt").write_text("and changed\n")
    (root / "changed.txt").write_text("changed\n")
    (root / "new.txt").write_text("untracked\n")
    staged = git(root, "diff", "--cached")
    version.commit(photos, message="as it came")
    assert git(root, "diff", "--cached") == staged
    assert git(root, "status", "--porcelain").splitlines() == [
        " M .gitignore", "MM both.txt", " M changed.txt", "M  staged.txt", "?? new.txt",
    ]  # fmt: skip
    assert git(root, "show", "HEAD:.gitignore") == "*.log\n/photos\n"
    assert (root / ".gitignore").read_text() == "*.log\n*.tmp\n/photos\n"
    assert "staged.txt" not in git(root, "show", "--stat", "HEAD")


def test_checkout_brings_back_the_bytes_and_leaves_head_and_index(photos):
    root = photos.parent
    version.commit(photos, message="as it came")
    first = tree(photos)
    relabel(photos, "0.png", "cat", "dog")
    note(photos, "fixes.jsonl", '{"op": "relabel"}')
    note(photos, "decisions.jsonl", '{"verdict": "accept"}')
    version.commit(photos, message="one cat is a dog")
    second = tree(photos)
    (root / "mine.txt").write_text("staged\n")
    git(root, "add", "mine.txt")
    head, staged = git(root, "rev-parse", "HEAD"), git(root, "diff", "--cached")
    version.checkout(photos, "v1")
    assert tree(photos) == first
    assert not (root / ".dataaudit/photos/fixes.jsonl").exists()
    assert (root / ".dataaudit/photos/decisions.jsonl").read_text() == '{"verdict": "accept"}\n'
    assert (git(root, "rev-parse", "HEAD"), git(root, "diff", "--cached")) == (head, staged)
    version.checkout(photos, "v2")
    assert tree(photos) == second
    assert git(root, "status", "--porcelain") == "A  mine.txt\n"


def test_checkout_refuses_to_lose_labels_that_are_in_no_version(photos):
    version.commit(photos, message="as it came")
    relabel(photos, "0.png", "cat", "dog")
    before = tree(photos)
    with pytest.raises(ConflictError, match=r"in no version.*dog/0.png, cat/0.png \(gone\)"):
        version.checkout(photos, "v1")
    assert tree(photos) == before
    version.checkout(photos, "v1", force=True)
    assert (photos / "cat" / "0.png").exists()


def test_checkout_refuses_to_lose_fixes_that_are_in_no_version(photos):
    version.commit(photos, message="as it came")
    note(photos, "fixes.jsonl", '{"op": "relabel"}')
    with pytest.raises(ConflictError, match=r"1 fixes in \.dataaudit/photos/fixes\.jsonl"):
        version.checkout(photos, "v1")
    assert version.commit(photos, message="a fix and its undo").name == "v2"


def test_a_version_gone_back_to_can_be_committed_as_the_newest(photos):
    version.commit(photos, message="as it came")
    relabel(photos, "0.png", "cat", "dog")
    version.commit(photos, message="wrong")
    version.checkout(photos, "v1")
    made = version.commit(photos, message="back to v1")
    assert (made.name, made.counts["labels"]) == ("v3", {"cat": 3, "dog": 3})


def test_an_interrupted_checkout_is_finished_by_the_same_command(photos, monkeypatch):
    version.commit(photos, message="as it came")
    first = tree(photos)
    relabel(photos, "0.png", "cat", "dog")
    relabel(photos, "1.png", "cat", "dog")
    version.commit(photos, message="two cats are dogs")
    from dataaudit.version import store

    def stopped(repo, files):
        relabel(photos, "0.png", "dog", "cat")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(store, "checkout", stopped)
        version.checkout(photos, "v1")
    with pytest.raises(ConflictError, match="checkout of 'v1' was interrupted"):
        version.commit(photos, message="half")
    version.checkout(photos, "v1")
    assert tree(photos) == first


def test_a_commit_cut_off_before_its_tag_gets_the_tag_from_the_next(photos):
    version.commit(photos, message="as it came")
    git(photos.parent, "tag", "-d", "photos/v1")
    head = git(photos.parent, "rev-parse", "HEAD")
    assert version.commit(photos, message="again").name == "v1"
    assert git(photos.parent, "rev-parse", "HEAD") == head


def test_a_commit_stopped_at_any_call_of_git_is_made_by_the_next(tmp_path, monkeypatch):
    from dataaudit.version import git as program

    whole = program.run
    for stop in itertools.count(1):
        photos = folder(tmp_path / str(stop) / "photos")
        version.commit(photos, message="as it came", progress=False)
        relabel(photos, "0.png", "cat", "dog")
        calls = iter(range(1, stop))

        def run(*args, calls=calls, **options):
            if next(calls, None) is None:
                raise KeyboardInterrupt
            return whole(*args, **options)

        try:
            with monkeypatch.context() as patch:
                patch.setattr(program, "run", run)
                version.commit(photos, message="one cat is a dog", progress=False)
        except KeyboardInterrupt:
            with contextlib.suppress(InputError):  # it was stopped after its last step
                version.commit(photos, message="one cat is a dog", progress=False)
        else:
            break
        assert [v.name for v in version.versions(photos)] == ["v1", "v2"]
        assert git(photos.parent, "status", "--porcelain") == ""
        assert version.diff(photos, "v1", "v2").counts == {"relabeled": 1}
    assert stop > 15


def test_two_datasets_in_one_repository_have_their_own_versions(photos):
    other = folder(photos.parent / "scans")
    version.commit(photos, message="photos")
    version.commit(other, message="scans")
    relabel(photos, "0.png", "cat", "dog")
    version.commit(photos, message="photos again")
    assert [v.tag for v in version.versions(photos)] == ["photos/v1", "photos/v2"]
    assert [v.tag for v in version.versions(other)] == ["scans/v1"]
    version.checkout(photos, "v1")
    assert tree(other) == tree(photos)


def test_datasets_of_the_same_name_in_one_repository_do_not_share_tags(tmp_path):
    git(tmp_path, "init", "-q")
    for parent in ("a", "b"):
        folder(tmp_path / parent / "photos")
        made = version.commit(tmp_path / parent / "photos", message="first")
        assert made.tag == f"{parent}/photos/v1"


def test_a_dataset_folder_that_is_the_repository_tracks_its_classes_one_by_one(tmp_path):
    root = folder(tmp_path / "photos")
    git(root, "init", "-q")
    version.commit(root, message="as it came")
    first = {p: d for p, d in tree(root).items() if p.endswith(".png")}
    for name in ("0.png", "1.png", "2.png"):
        relabel(root, name, "cat", "bird")
    (root / "cat").rmdir()
    version.commit(root, message="all cats are birds")
    assert sorted(p.name for p in root.glob("[a-z]*.dvc")) == ["bird.dvc", "dog.dvc"]
    version.checkout(root, "v1")
    assert {p: d for p, d in tree(root).items() if p.endswith(".png")} == first
    version.checkout(root, "v2")
    assert sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")) == [
        "bird",
        "dog",
    ]


def manifest(root: Path) -> Path:
    for number in range(4):
        picture(root / "images" / f"{number}.png", 10 * number)
    rows = "".join(f"images/{n}.png,{'cat' if n < 2 else 'dog'}\n" for n in range(4))
    (root / "labels.csv").write_text("filepath,label\n" + rows)
    return root / "labels.csv"


@pytest.mark.parametrize("in_git", [False, True])
def test_a_manifest_is_versioned_with_its_images(tmp_path, in_git):
    path = manifest(tmp_path / "set")
    if in_git:
        git(path.parent, "init", "-q")
        git(path.parent, "add", "labels.csv")
        git(path.parent, "commit", "-qm", "labels")
    version.commit(path, message="as it came")
    first = path.read_bytes()
    path.write_bytes(first.replace(b"images/0.png,cat", b"images/0.png,dog"))
    with pytest.raises(ConflictError, match=r"labels\.csv"):
        version.checkout(path, "v1")
    version.commit(path, message="one cat is a dog")
    assert (path.parent / "labels.csv.dvc").exists() is not in_git
    version.checkout(path, "v1")
    assert path.read_bytes() == first
    assert version.read(path, "v2").labels["name"].tolist() == ["dog", "cat", "dog", "dog"]


def test_images_that_git_tracks_are_refused_with_the_command_that_hands_them_over(photos):
    git(photos.parent, "init", "-q")
    git(photos.parent, "add", "-A")
    git(photos.parent, "commit", "-qm", "all")
    with pytest.raises(InputError, match=r"tracks 6 files(.|\n)*git rm -r --cached --quiet -- photos"):
        version.commit(photos, message="as it came")


def test_a_folder_that_dvc_tracks_already_stays_its_target(tmp_path):
    folder(tmp_path / "data" / "photos")
    picture(tmp_path / "data" / "other" / "x.png", 77)
    git(tmp_path, "init", "-q")
    from dataaudit.version import store

    store.init(tmp_path, tmp_path)
    with store.open_repo(tmp_path) as repo:
        repo.add([str(tmp_path / "data")])
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "data")
    photos = tmp_path / "data" / "photos"
    version.commit(photos, message="as it came")
    first = tree(photos)
    relabel(photos, "0.png", "cat", "dog")
    version.commit(photos, message="one cat is a dog")
    assert [p.name for p in tmp_path.rglob("*.dvc") if p.is_file()] == ["data.dvc"]
    assert len(version.read(photos, "v1").images) == 6
    version.checkout(photos, "v1")
    assert tree(photos) == first
    assert (tmp_path / "data" / "other" / "x.png").exists()


def test_no_repository_is_made_in_the_home_folder(tmp_path, monkeypatch):
    folder(tmp_path / "photos")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(InputError, match="git init"):
        version.commit(tmp_path / "photos", message="as it came")
    assert not (tmp_path / ".git").exists()


def test_a_commit_works_without_a_git_user(photos, monkeypatch, tmp_path):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "none"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    version.commit(photos, message="as it came")
    assert git(photos.parent, "log", "-1", "--format=%an <%ae>") == "dataaudit <dataaudit@localhost>\n"
    assert "user" not in (photos.parent / ".git" / "config").read_text()


def test_an_old_version_is_read_while_the_working_copy_is_dirty(photos):
    version.commit(photos, message="as it came")
    relabel(photos, "0.png", "cat", "dog")
    picture(photos / "dog" / "new.png", 200)
    before = tree(photos.parent / "photos")
    tables = version.read(photos, "v1")
    assert tables.images.index.tolist() == [
        "cat/0.png",
        "cat/1.png",
        "cat/2.png",
        "dog/3.png",
        "dog/4.png",
        "dog/5.png",
    ]
    assert tables.images["digest"].str.fullmatch("[0-9a-f]{32}").all()
    assert Path(tables.images.loc["cat/0.png", "filepath"]).read_bytes() == before["dog/0.png"]
    assert tables.source.anchor == photos.parent
    assert tree(photos) == before
    assert version.materialize(photos, "v1") == version.materialize(photos, "photos/v1")


def test_an_unknown_version_names_those_there_are(photos):
    version.commit(photos, message="as it came")
    with pytest.raises(InputError, match=r"no version 'v9' of photos(.|\n)*There are: v1"):
        version.read(photos, "v9")


def test_push_clone_and_pull_bring_all_versions(photos, tmp_path):
    root = photos.parent
    version.commit(photos, message="as it came")
    relabel(photos, "0.png", "cat", "dog")
    version.commit(photos, message="one cat is a dog")
    with pytest.raises(InputError, match="dvc remote add"):
        version.push(photos)
    remote = tmp_path / "remote"
    config = root / ".dvc" / "config"
    config.write_text(f"[core]\n    remote = store\n['remote \"store\"']\n    url = {remote}\n")
    git(root, "commit", "-qam", "a remote")
    assert version.push(photos) == 8
    git(tmp_path, "clone", "-q", str(root), "clone")
    clone = tmp_path / "clone" / "photos"
    assert not clone.exists()
    assert version.pull(clone) > 0
    assert tree(clone) == tree(photos)
    assert len(version.read(clone, "v1").images) == 6
    version.checkout(clone, "v1")
    assert (clone / "cat" / "0.png").exists()
    assert git(tmp_path / "clone", "status", "--porcelain").splitlines() == [
        " M .dataaudit/photos/metrics.json", " M photos.dvc",
    ]  # fmt: skip


def test_objects_missing_from_the_cache_are_an_error_that_says_pull(photos):
    version.commit(photos, message="as it came")
    relabel(photos, "0.png", "cat", "dog")
    version.commit(photos, message="one cat is a dog")
    shutil.rmtree(photos.parent / ".dvc" / "cache" / "files")
    with pytest.raises(ConflictError, match="version pull"):
        version.read(photos, "v1")


def test_pull_does_not_lose_labels_that_are_in_no_version(photos, tmp_path):
    version.commit(photos, message="as it came")
    (photos.parent / ".dvc" / "config").write_text(
        f"[core]\n    remote = store\n['remote \"store\"']\n    url = {tmp_path / 'remote'}\n"
    )
    version.push(photos)
    relabel(photos, "0.png", "cat", "dog")
    with pytest.raises(ConflictError, match="in no version"):
        version.pull(photos)


def test_hooks_of_the_user_do_not_run(photos):
    git(photos.parent, "init", "-q")
    hook = photos.parent / ".git" / "hooks" / "pre-commit"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    assert version.commit(photos, message="as it came").name == "v1"


def test_a_merge_under_way_is_refused(photos):
    version.commit(photos, message="as it came")
    relabel(photos, "0.png", "cat", "dog")
    (photos.parent / ".git" / "MERGE_HEAD").write_text(git(photos.parent, "rev-parse", "HEAD"))
    with pytest.raises(ConflictError, match="merge"):
        version.commit(photos, message="one cat is a dog")


def test_what_a_clone_must_know_is_recorded(photos):
    version.commit(photos, message="as it came")
    record = json.loads((photos.parent / ".dataaudit/photos/dataset.json").read_text())
    assert record == {
        "format": "folder",
        "root": "photos",
        "path": "photos",
        "options": {},
        "targets": ["photos"],
    }


def test_nothing_goes_over_the_network_and_nothing_is_printed(photos, capfd):
    version.commit(photos, message="as it came", progress=False)
    assert capfd.readouterr() == ("", "")
    assert (
        subprocess.run(["git", "-C", photos.parent, "fsck", "--strict"], capture_output=True).returncode == 0
    )


def test_many_images_beside_their_manifest_are_tracked_as_their_folder(tmp_path):
    root = tmp_path / "set"
    for number in range(101):
        picture(root / f"{number}.png", number)
    (root / "labels.csv").write_text("filepath,label\n" + "".join(f"{n}.png,c{n % 2}\n" for n in range(101)))
    version.commit(root / "labels.csv", message="as it came")
    assert (tmp_path / "set.dvc").exists()
    (tmp_path / "own").mkdir()
    (root).rename(tmp_path / "own" / "set")
    git(tmp_path / "own" / "set", "init", "-q")
    with pytest.raises(InputError, match="101 images lie loose"):
        version.commit(tmp_path / "own" / "set" / "labels.csv", message="as it came")


def test_names_with_spaces_and_letters_of_any_script_work(tmp_path):
    root = folder(tmp_path / "work" / "meine Bilder ü")
    (root / "cat").rename(root / "große Katze")
    assert version.commit(root, message="wie es kam: ü").tag == "meine-Bilder-ü/v1"
    first = tree(root)
    relabel(root, "0.png", "große Katze", "dog")
    version.commit(root, message="eine Katze ist ein Hund")
    assert version.diff(root, "v1", "v2").changes["old"].tolist() == ["große Katze"]
    version.checkout(root, "v1")
    assert tree(root) == first
    assert git(tmp_path / "work", "status", "--porcelain", "-uall", "--ignored=no").count("??") == 0


def test_a_dataset_folder_that_is_the_repository_keeps_its_versions_in_a_clone_of_another_name(tmp_path):
    root = folder(tmp_path / "photos")
    git(root, "init", "-q")
    version.commit(root, message="as it came")
    (root / ".dvc" / "config").write_text(
        f"[core]\n    remote = s\n['remote \"s\"']\n    url = {tmp_path / 'r'}\n"
    )
    git(root, "commit", "-qam", "a remote")
    version.push(root)
    git(tmp_path, "clone", "-q", str(root), "copy")
    version.pull(tmp_path / "copy")
    assert [v.tag for v in version.versions(tmp_path / "copy")] == ["photos/v1"]
    relabel(tmp_path / "copy", "0.png", "cat", "dog")
    assert version.commit(tmp_path / "copy", message="one cat is a dog").tag == "photos/v2"


def test_a_comparison_alone_is_no_new_version(photos):
    version.commit(photos, message="as it came")
    (photos.parent / ".dataaudit" / "photos" / "compare.json").write_text("{}")
    with pytest.raises(InputError, match="Nothing changed"):
        version.commit(photos, message="again")


def test_versions_load_no_heavy_package():
    code = "import sys, dataaudit.version; print(sorted({'dvc', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_data_tracked_by_hand_is_read_and_checked_out_from_before_the_first_version(tmp_path):
    from dataaudit.version import store

    photos = folder(tmp_path / "photos")
    git(tmp_path, "init", "-q")
    store.init(tmp_path, tmp_path)
    with store.open_repo(tmp_path) as repo:
        repo.add([str(photos)])
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "by hand")
    first = tree(photos)
    relabel(photos, "0.png", "cat", "dog")
    version.commit(photos, message="one cat is a dog")
    assert version.diff(photos, "HEAD~1", "v1").counts == {"relabeled": 1}
    version.checkout(photos, "HEAD~1")
    assert tree(photos) == first
    version.checkout(photos, "v1")
    assert git(tmp_path, "status", "--porcelain") == ""


def test_the_output_of_a_pipeline_stays_one(tmp_path):
    from dataaudit.version import store

    photos = folder(tmp_path / "photos")
    git(tmp_path, "init", "-q")
    store.init(tmp_path, tmp_path)
    (tmp_path / "dvc.yaml").write_text("stages:\n  make:\n    cmd: echo\n    outs:\n    - photos\n")
    with store.open_repo(tmp_path) as repo:
        repo.commit(f"{tmp_path / 'dvc.yaml'}:make", force=True)
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "pipeline")
    version.commit(photos, message="as it came")
    first = tree(photos)
    relabel(photos, "0.png", "cat", "dog")
    version.commit(photos, message="one cat is a dog")
    assert not (tmp_path / "photos.dvc").exists()
    assert version.diff(photos, "v1", "v2").counts == {"relabeled": 1}
    version.checkout(photos, "v1")
    assert tree(photos) == first


def test_a_repository_above_without_dvc_gets_it_beside_the_dataset(tmp_path):
    git(tmp_path, "init", "-q")
    photos = folder(tmp_path / "data" / "photos")
    version.commit(photos, message="as it came")
    first = tree(photos)
    relabel(photos, "0.png", "cat", "dog")
    version.commit(photos, message="one cat is a dog")
    assert (tmp_path / "data" / ".dvc").is_dir() and not (tmp_path / ".dvc").exists()
    version.checkout(photos, "v1")
    assert tree(photos) == first
    assert git(tmp_path, "status", "--porcelain").splitlines() == [
        " M data/.dataaudit/photos/metrics.json", " M data/photos.dvc",
    ]  # fmt: skip
