"""Where the state of a dataset is kept: ``.dataaudit/`` beside it, as ``.git`` and ``.dvc`` are.

.dataaudit/
  .gitignore               leaves out the cache, the reports and what is under way
  cache/                   signals by content; safe to delete; shared by the datasets of this folder
  <name of the dataset>/
    decisions.jsonl        verdicts of people, append-only, committed with a version
    fixes.jsonl            the ledger of applied fixes, append-only, committed with a version
    dropped/               files that a fix took out of the dataset
    reports/               the latest report in each form
    journal/               a fix that is under way
"""

from __future__ import annotations

from pathlib import Path

from dataaudit.types import Source

__all__ = [
    "FOLDER",
    "RECORD",
    "cache_dir",
    "decisions_file",
    "ledger_file",
    "name_of",
    "prepare",
    "pushed_file",
    "reports_dir",
    "state_dir",
    "worklist_file",
]

FOLDER = ".dataaudit"
RECORD = "dataset.json"
"""What a version writes into the state so that a clone can find and read the dataset."""
_IGNORED = "/cache/\n/*/reports/\n/*/journal/\n/*/dropped/\n/.gitignore\n"


def name_of(source: Source) -> str:
    """Name of the dataset's own folder in the state.

    >>> name_of(Source(format="folder", root=Path("/data/photos"), path="/data/photos", anchor=Path("/data")))
    'photos'
    """
    if source.root is None:
        return source.path.replace("/", "_")
    name = Path(source.path).name
    if Path(source.path) == source.anchor:
        # A repository that is the dataset may be cloned under another name; its versions keep the first
        kept = sorted(path.parent.name for path in (source.anchor / FOLDER).glob("*/" + RECORD))
        return name if name in kept or len(kept) != 1 else kept[0]
    # Manifests of one name in several folders may share the folder above as their anchor
    shared = Path(source.path) != source.root and source.root != source.anchor
    return f"{source.root.name}__{name}" if shared else name


def state_dir(source: Source) -> Path:
    """Folder of the decisions, the ledger and the reports of one dataset; it may not exist yet."""
    return source.anchor / FOLDER / name_of(source)


def cache_dir(source: Source) -> Path:
    """Folder of the cached signals; it may not exist yet."""
    return source.anchor / FOLDER / "cache"


def decisions_file(source: Source) -> Path:
    """The verdicts of people, one JSON object a line."""
    return state_dir(source) / "decisions.jsonl"


def ledger_file(source: Source) -> Path:
    """The applied fixes, one JSON object a line."""
    return state_dir(source) / "fixes.jsonl"


def reports_dir(source: Source) -> Path:
    """Folder of the latest report in each form."""
    return state_dir(source) / "reports"


def worklist_file(source: Source) -> Path:
    """What a review of the latest audit opens with."""
    return reports_dir(source) / "worklist.json"


def pushed_file(source: Source) -> Path:
    """What was last written into FiftyOne, so that an audit that finds the same needn't write it again."""
    return reports_dir(source) / "fiftyone.json"


def prepare(source: Source) -> Path:
    """Make the state's folders and return the dataset's own."""
    folder = state_dir(source)
    folder.mkdir(parents=True, exist_ok=True)
    ignore = source.anchor / FOLDER / ".gitignore"
    if not ignore.exists():
        ignore.write_text(_IGNORED)
    return folder
