"""The command line: argument parsing only; every command is one or two calls of the public API."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import dataaudit

__all__ = ["main", "parser"]

_EXIT = "Exit codes: 0 clean or under the gate, 1 findings over the gate, 2 bad usage or input."


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    root = argparse.ArgumentParser(prog="dataaudit", description=dataaudit.__doc__, epilog=_EXIT)
    root.add_argument("--version", action="version", version=f"dataaudit {dataaudit.__version__}")
    commands = root.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _audit(commands.add_parser("audit", help="find wrong, inconsistent and broken annotations", epilog=_EXIT))
    _fix(commands.add_parser("fix", help="correct the files: from a probability or from decisions; undo"))
    _decisions(
        commands.add_parser("decisions", help="what people decided: list, export, import, agreement, settle")
    )
    _version(
        commands.add_parser("version", help="commit, list, diff, compare and check out versions (git + DVC)")
    )
    _show(commands.add_parser("show", help="a quick look: draw the labels of some images into a page"))
    _model(commands.add_parser("model", help="check the model side: determinism, layers, loss, and more"))
    _review(
        commands.add_parser("review", help="look at the findings one by one and decide, in the FiftyOne App")
    )
    rule = commands.add_parser("rule", help="what a check looks for, how it scores, what its fix does")
    rule.add_argument("code", nargs="?", metavar="CODE", help="such as LBL001; all checks when left out")
    rule.add_argument("--format", choices=("text", "markdown"), default="text")
    commands.add_parser("doctor", help="what is installed and working")
    demo = commands.add_parser("demo", help="the whole loop on real images, in about a minute")
    demo.add_argument(
        "folder", nargs="?", default="dataaudit-demo", metavar="DIR", help="a new folder (%(default)s)"
    )
    demo.add_argument("--no-fiftyone", action="store_true", help="don't write the findings into FiftyOne")
    return root


def _dataset(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "path",
        metavar="DIR",
        help="folder, manifest (CSV, Parquet), file of annotations (COCO, CVAT, data.yaml) "
        "or name of a FiftyOne dataset",
    )


def _reading(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--input-format", metavar="NAME", help="format of the dataset, when it isn't to be detected"
    )
    command.add_argument("--option", action="append", default=[], metavar="KEY=VALUE",
                         help="option of the format, such as label=species; may be repeated")  # fmt: skip
    command.add_argument(
        "--annotations", metavar="FILE", help="what several people said about the images: .csv, .parquet"
    )
    command.add_argument("--annotation-column", action="append", default=[], metavar="KIND=NAME",
                         help="column of the annotations: sample, annotator, label; repeatable")  # fmt: skip
    command.add_argument("--pred-probs", action="append", default=[], metavar="FILE",
                         help="your model's out-of-sample probabilities: .npy, .csv, .parquet; "
                         "may be repeated for several models")  # fmt: skip
    command.add_argument(
        "--predictions",
        metavar="FILE",
        help="your model's predictions: a table with sample_id, name, confidence; "
        "of objects COCO results, a folder of YOLO text files or a FiftyOne field",
    )
    command.add_argument(
        "--training-dynamics",
        metavar="FILE",
        help="your training's margin, confidence or loss for each sample",
    )
    command.add_argument("--backbone", metavar="NAME", help="efficientnet_lite0, resnet50, timm:NAME, ...")
    command.add_argument(
        "--baseline",
        choices=("probe", "finetune"),
        help="what judges classes of images; finetune trains a network",
    )
    command.add_argument(
        "--detector",
        choices=("baseline", "finetune"),
        help="what finds objects; finetune trains a detector of torchvision, on a GPU at best",
    )
    command.add_argument("--device", metavar="NAME", help="auto, cpu, cuda, mps")
    command.add_argument("-q", "--quiet", action="store_true", help="no progress bars")


def _audit(command: argparse.ArgumentParser) -> None:
    _dataset(command)
    command.add_argument("--select", metavar="CODES", help="checks to run, such as LBL,DUP001")
    command.add_argument("--ignore", metavar="CODES", help="checks to leave out")
    command.add_argument("--fail-on", action="append", metavar="RULE",
                         help="gate: 'LBL>1%%', 'DUP001>0', 'any>=10'; repeatable (any>0)")  # fmt: skip
    command.add_argument("--exit-zero", action="store_true", help="exit with 0 whatever is found")
    command.add_argument("--format", choices=("text", "json", "sarif", "junit", "github"), default="text",
                         help="what goes to standard output (%(default)s)")  # fmt: skip
    command.add_argument("--output", metavar="FOLDER", help="where the reports go (.dataaudit/NAME/reports)")
    command.add_argument(
        "--rev", metavar="VERSION", help="audit this version without touching the working copy"
    )
    command.add_argument("--no-fiftyone", action="store_true", help="don't write the findings into FiftyOne")
    command.add_argument("--clean", action="store_true", help="only take the findings out of FiftyOne again")
    _reading(command)


def _fix(command: argparse.ArgumentParser) -> None:
    _dataset(command)
    command.add_argument(
        "--min-probability", type=float, metavar="P", help="fix findings that are this probable, 0 to 1"
    )
    decided = command.add_mutually_exclusive_group()
    decided.add_argument("--decided", action="store_true", help="what was decided in review")
    decided.add_argument(
        "--decisions", metavar="FILE", help="CSV or JSONL: finding, verdict, label, box, reviewer, note"
    )
    command.add_argument("--select", metavar="CODES", help="only findings of these checks")
    command.add_argument("--reviewer", metavar="NAME", help="who decided, for the ledger")
    command.add_argument(
        "--dry-run", action="store_true", help="print the fixes as a diff and change nothing"
    )
    command.add_argument("--undo", action="store_true", help="take the latest fixes back, to the same bytes")
    _reading(command)


def _decisions(command: argparse.ArgumentParser) -> None:
    actions = command.add_subparsers(dest="action", metavar="ACTION", required=True)
    listed = actions.add_parser("list", help="what stands, or every line that was recorded")
    _dataset(listed)
    listed.add_argument("--all", action="store_true", help="also what was changed or withdrawn since")
    exported = actions.add_parser(
        "export", help="all findings with the decisions so far, as a CSV; or for a label tool"
    )
    _dataset(exported)
    exported.add_argument("file", metavar="FILE", help="a CSV, or with --to a folder")
    exported.add_argument("--to", choices=("label-studio", "cvat"), help="a label tool; undecided findings")
    exported.add_argument("--select", metavar="CODES", help="with --to: only findings of these checks")
    exported.add_argument("-n", type=int, metavar="N", help="with --to: at most so many images")
    exported.add_argument("--images", default="embed", metavar="WHERE",
                          help="with --to: embed, local (Label Studio's local files), "
                          "or the URL of the dataset's folder (%(default)s)")  # fmt: skip
    exported.add_argument("--all", action="store_true", help="with --to: decided findings too")
    imported = actions.add_parser("import", help="record the decisions of files, of one person or several")
    _dataset(imported)
    imported.add_argument(
        "files", metavar="FILE", nargs="+", help="CSV, JSONL, or the export of Label Studio or CVAT"
    )
    imported.add_argument("--finished", action="store_true", help="CVAT: unticked images were reviewed too")
    _dataset(actions.add_parser("agreement", help="Cohen's kappa of each two people on what both decided"))
    _dataset(actions.add_parser("conflicts", help="findings that two people decided differently"))
    settled = actions.add_parser("settle", help="settle conflicts by a rule")
    _dataset(settled)
    settled.add_argument("keys", metavar="KEY", nargs="*", help="findings; all conflicts when left out")
    settled.add_argument("--rule", required=True, help="latest, majority or by:NAME")
    withdrawn = actions.add_parser("withdraw", help="take decisions back; the findings are undecided again")
    _dataset(withdrawn)
    withdrawn.add_argument("keys", metavar="KEY", nargs="+", help="findings")
    whose = {
        listed: "only this person's", exported: "only this person's", imported: "of rows that name nobody",
        settled: "who settles", withdrawn: "whose decisions",
    }  # fmt: skip
    for each, what in whose.items():
        each.add_argument("--reviewer", metavar="NAME", help=what)
    for each in actions.choices.values():
        _reading(each)


def _show(command: argparse.ArgumentParser) -> None:
    _dataset(command)
    command.add_argument("-n", "--n", type=int, default=24, metavar="N", help="how many images (%(default)s)")
    command.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the random choice (%(default)s)"
    )
    order = command.add_mutually_exclusive_group()
    for name, what in (
        ("worst", "the worst images by the last audit, with what it proposes"),
        ("densest", "the images with most objects"),
        ("sparsest", "the images with fewest objects"),
    ):
        order.add_argument(f"--{name}", dest="order", action="store_const", const=name, help=what)
    command.set_defaults(order="random")
    command.add_argument("--class", dest="name", metavar="NAME", help="only images with this class")
    command.add_argument("--output", metavar="FILE", help="the page (.dataaudit/NAME/reports/show.html)")
    command.add_argument("--open", action="store_true", help="open the page in the browser")
    command.add_argument(
        "--rev", metavar="VERSION", help="show this version without touching the working copy"
    )
    command.add_argument(
        "--input-format", metavar="NAME", help="format of the dataset, when it isn't to be detected"
    )
    command.add_argument("--option", action="append", default=[], metavar="KEY=VALUE",
                         help="option of the format, such as label=species; may be repeated")  # fmt: skip


def _model(command: argparse.ArgumentParser) -> None:
    from dataaudit.modelcheck import commands

    commands.add(command, epilog=_EXIT)


def _review(command: argparse.ArgumentParser) -> None:
    _dataset(command)
    command.add_argument("--reviewer", metavar="NAME", help="who decides (the name you are logged in with)")
    command.add_argument(
        "--select", metavar="CODES", help="only findings of these checks, such as LBL,DUP001"
    )
    command.add_argument("--second", nargs="?", type=float, const=1.0, metavar="SHARE",
                         help="a second opinion on what others decided, without seeing what they said; "
                         "of this share of it, 0 to 1 (1)")  # fmt: skip
    command.add_argument("--page", action="store_true", help="in the HTML report, which needs no FiftyOne")
    command.add_argument(
        "--port", type=int, metavar="N", help="of the App (FiftyOne's, or the next free one)"
    )
    command.add_argument("--address", metavar="HOST", help="of the App (FiftyOne's: this machine alone)")
    command.add_argument("--remote", action="store_true", help="the reviewer sits at another machine")
    command.add_argument("--no-open", action="store_true", help="don't open the browser")
    command.set_defaults(output=None)
    _reading(command)


def _version(command: argparse.ArgumentParser) -> None:
    commands = command.add_subparsers(dest="action", metavar="ACTION", required=True)
    commit = commands.add_parser("commit", help="keep the dataset as it is now")
    _dataset(commit)
    commit.add_argument("-m", "--message", required=True, help="what changed")
    commit.add_argument("--tag", metavar="NAME", help="name of the version (v1, v2, ...)")
    listed = commands.add_parser("list", help="the versions there are")
    _dataset(listed)
    diff = commands.add_parser("diff", help="label by label or box by box, what changed between two versions")
    _dataset(diff)
    diff.add_argument("a", metavar="A", help="a version, such as v1")
    diff.add_argument("b", metavar="B", nargs="?", help="another; the working copy when left out")
    diff.add_argument("--format", choices=("text", "json"), default="text")
    compare = commands.add_parser("compare", help="accuracy or mAP of the baseline, trained on each version")
    _dataset(compare)
    compare.add_argument("versions", metavar="VERSION", nargs="+", help="two or more versions")
    compare.add_argument("--format", choices=("text", "json"), default="text")
    compare.add_argument(
        "--plot", metavar="FILE", help="where the plot goes (.dataaudit/NAME/reports/compare.png)"
    )
    compare.add_argument("--mlflow", action="store_true", help="log to MLflow as well")
    compare.add_argument("--backbone", metavar="NAME")
    compare.add_argument("--device", metavar="NAME")
    checkout = commands.add_parser("checkout", help="put the dataset back to a version")
    _dataset(checkout)
    checkout.add_argument("version", metavar="VERSION")
    checkout.add_argument("--force", action="store_true", help="throw away changes that are in no version")
    for name, what in (
        ("push", "send versions to a DVC remote"),
        ("pull", "fetch versions from a DVC remote"),
    ):
        remote = commands.add_parser(name, help=what)
        _dataset(remote)
        remote.add_argument("--remote", metavar="NAME", help="the DVC remote (the default one)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    given = parser().parse_args(arguments)
    from dataaudit import commands
    from dataaudit.errors import DataAuditError

    try:
        code = commands.run(given)
        sys.stdout.flush()
        return code
    except DataAuditError as error:
        print(f"dataaudit: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("dataaudit: stopped. What was read is kept: run it again to go on.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # such as `dataaudit rule | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        print(f"dataaudit: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
