"""What the commands of the command line do, each in a few calls of the public API."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataaudit import config, state
from dataaudit.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from dataaudit.types import Report, Source, Tables

__all__ = ["run"]


def run(given: argparse.Namespace) -> int:
    """Run the command that was given; returns the exit code."""
    name = given.command if given.command != "version" else f"version_{given.action}"
    command: Callable[[argparse.Namespace], int] = globals()[f"_{name}"]
    return command(given)


def _audit(given: argparse.Namespace) -> int:
    if given.clean:
        return _clean(given)
    settings = config.find(given.path)
    from dataaudit.report import check_rules, gate, summarize, to_terminal

    rules = tuple(given.fail_on or settings.fail_on or ("any>0",))
    check_rules(rules)
    wants_fiftyone = settings.fiftyone and not given.no_fiftyone
    if wants_fiftyone:
        threading.Thread(target=_warm_fiftyone, daemon=True).start()
    report = _report(given, settings)
    summary = summarize(report)
    files = _write_reports(report, summary, given)
    if given.format == "text":
        _say(_took(report))
        to_terminal(summary, html=files.get("report.html"))
    else:
        _print(_machine(summary, given.format))
    if wants_fiftyone:
        _say(_push(report))
    breaches = gate(summary, rules)
    for breach in breaches:
        _say(f"Over the gate: {breach.message}")
    return 1 if breaches and not given.exit_zero else 0


def _report(given: argparse.Namespace, settings: config.Config) -> Report:
    from dataaudit import inputs, loading, pipeline

    rev = getattr(given, "rev", None)
    options = {**settings.options, **_options(given.option)}
    quiet = given.quiet or (getattr(given, "format", "text") != "text" and not sys.stderr.isatty())
    tables = loading.read(given.path, rev=rev, format=given.input_format, options=options)
    probabilities = [inputs.read(path) for path in given.pred_probs]
    return pipeline.audit(
        tables,
        select=_codes(given.select) if given.command == "audit" and given.select else settings.select,
        ignore=_codes(getattr(given, "ignore", None)) or settings.ignore,
        settings=settings.settings,
        backbone=given.backbone or settings.backbone,
        baseline=given.baseline or settings.baseline,
        detector=given.detector or settings.detector,
        device=given.device or settings.device,
        pred_probs=probabilities[0] if len(probabilities) == 1 else probabilities or None,
        predictions=_predictions(given.predictions, tables),
        training_dynamics=inputs.read(given.training_dynamics) if given.training_dynamics else None,
        annotations=given.annotations,
        annotation_columns=_options(given.annotation_column),
        progress=not quiet,
    )


def _predictions(given: str | None, tables: Tables) -> Any:
    from dataaudit import inputs

    if given is None or tables.task == "detection":
        return given
    return inputs.read(given, indexed=False)


def _codes(text: str | None) -> tuple[str, ...]:
    return tuple(code.strip().upper() for code in (text or "").split(",") if code.strip())


def _options(pairs: list[str]) -> dict[str, str]:
    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise InputError(
                f"The option {pair!r} is not of the form KEY=VALUE.", fix="Such as --option label=species"
            )
        options[key] = value
    return options


def _write_reports(report: Report, summary: Mapping[str, Any], given: argparse.Namespace) -> dict[str, Path]:
    from dataaudit.report import write
    from dataaudit.report.files import replace_file
    from dataaudit.worklist import worklist_of

    source = report.tables.source
    assert source is not None
    if given.output is None and "rev" in source.options:
        return {}
    state.prepare(source)
    folder = state.reports_dir(source) if given.output is None else Path(given.output)
    worklist = worklist_of(report)
    if "rev" not in source.options:
        kept = state.worklist_file(source)
        kept.parent.mkdir(exist_ok=True)
        replace_file(kept, worklist.to_json().encode())
    return write(summary, folder, thumbnails=state.cache_dir(source) / "thumbnails", worklist=worklist)


def _took(report: Report) -> str:
    n, decoded = len(report.tables.images), report.n_decoded
    seconds = report.timings["total"]
    return f"Audited {n:,} images in {seconds:.1f} s ({decoded:,} decoded, {n - decoded:,} known)."


def _machine(summary: Mapping[str, Any], format_name: str) -> str:
    from dataaudit import report

    if format_name == "sarif":
        return report.to_sarif(summary, base=Path.cwd())
    if format_name == "github":
        return report.to_github(summary, base=Path.cwd())
    return report.to_junit(summary) if format_name == "junit" else report.to_json(summary)


def _print(text: str) -> None:
    print(text, end="" if text.endswith("\n") or not text else "\n")


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _warm_fiftyone() -> None:
    # Import and start of the database take seconds, mostly of waiting: beside the audit they cost little
    from dataaudit.formats._fiftyone import stay_connected

    stay_connected()


def _push(report: Report) -> str:
    from dataaudit import review, tables

    source = report.tables.source
    assert source is not None
    stamp = state.pushed_file(source)
    name = tables.dataset_name(source)
    database = [os.environ.get(f"FIFTYONE_DATABASE_{each}") for each in ("URI", "DIR", "NAME")]
    now = {"dataset": name, "database": database, "findings": _findings_digest(report)}
    keeps_stamp = "rev" not in source.options and source.root is not None
    if keeps_stamp and _read_json(stamp) == now:
        return (
            f"FiftyOne: nothing changed since dataset {name} was written.\n"
            f"  Open it with: fiftyone app launch {name}"
        )
    try:
        dataset = review.push(report)
    except MissingDependencyError as error:
        return f"Not written into FiftyOne: {error}\nTo do without it: --no-fiftyone"
    if keeps_stamp:
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(json.dumps(now))
    views = ", ".join(dataset.list_saved_views()) or "none"
    return (
        f"FiftyOne: dataset {dataset.name}, saved views: {views}.\n"
        f"  Open it with: fiftyone app launch {dataset.name}"
    )


def _findings_digest(report: Report) -> str:
    rows = [(item.key, item.decision, round(item.score, 6)) for item in report.items]
    where = sorted(report.tables.images["filepath"])
    text = json.dumps([report.digest, dict(report.params), rows, dict(report.skipped), where], default=str)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None


def _source(path: str, options: list[str] | None = None, format_name: str | None = None) -> Source:
    from dataaudit import formats

    chosen = {**config.find(path).options, **_options(options or [])}
    source = formats.read(path, format=format_name, options=chosen).source
    assert source is not None
    return source


def _clean(given: argparse.Namespace) -> int:
    from dataaudit import review, tables
    from dataaudit.formats._fiftyone import connect

    source = _source(given.path, given.option, given.input_format)
    name = tables.dataset_name(source)
    fiftyone = connect()
    state.pushed_file(source).unlink(missing_ok=True)
    if not fiftyone.dataset_exists(name):
        _say(f"There is no FiftyOne dataset {name}; nothing to take away.")
        return 0
    review.clean(fiftyone.load_dataset(name))
    _say(f"The findings are out of the FiftyOne dataset {name}.")
    return 0


def _fix(given: argparse.Namespace) -> int:
    from dataaudit import decisions, fix

    if given.undo:
        undone = fix.undo(_source(given.path, given.option, given.input_format))
        _say(f"Took back {undone.fixes:,} fixes.")
        return 0
    if given.min_probability is None and given.decisions is None and not given.decided:
        raise InputError(
            "Nothing says which fixes to take.",
            fix="Give --min-probability, --decided, --decisions or --undo.",
        )
    report = _report(given, config.find(given.path))
    verdicts = decisions.read(given.decisions, report) if given.decisions else None
    if given.decided:
        verdicts, stale = decisions.due(report)
        for key, reason in stale.items():
            _say(f"Left out {key}: {reason}")
    plan = fix.plan(
        report, min_probability=given.min_probability, codes=_codes(given.select), decisions=verdicts
    )
    for key, reason in plan.left_out.items():
        _say(f"Left out {key}: {reason}")
    if given.dry_run:
        print(plan.diff(), end="")
        _say(f"{len(plan):,} fixes planned; nothing was changed.")
        return 0
    applied = fix.apply(plan, reviewer=given.reviewer)
    if verdicts and not given.decided:
        decisions.record(plan.source, verdicts)
    if applied.id is None:
        _say("No finding is to be fixed; nothing was changed.")
        return 0
    _say(f"Applied {len(plan):,} fixes. Take them back with: dataaudit fix {given.path} --undo")
    _say(f"Ledger: {applied.ledger}")
    return 0


def _decisions(given: argparse.Namespace) -> int:
    from dataaudit.decisions import actions

    if given.action in ("export", "import"):
        from dataaudit.review import label_tools

        report = _report(given, config.find(given.path))
        if given.action == "import":
            files = list(map(Path, given.files))
            lines = label_tools.imported(report, files, reviewer=given.reviewer, finished=given.finished)
        elif given.to is not None:
            lines = label_tools.exported(
                report, Path(given.file), to=given.to, codes=_codes(given.select), n=given.n,
                images=given.images, decided=given.all,
            )  # fmt: skip
        else:
            lines = actions.exported(report, Path(given.file), reviewer=given.reviewer)
    else:
        source = _source(given.path, given.option, given.input_format)
        if given.action == "list":
            lines = actions.listed(source, reviewer=given.reviewer, everything=given.all)
        elif given.action == "settle":
            lines = actions.settled(source, rule=given.rule, reviewer=given.reviewer, findings=given.keys)
        elif given.action == "withdraw":
            lines = actions.withdrawn(source, given.keys, reviewer=given.reviewer)
        else:
            lines = (actions.agreed if given.action == "agreement" else actions.disputed)(source)
    for line in lines:
        print(line)
    return 0


def _version_commit(given: argparse.Namespace) -> int:
    from dataaudit import version

    source = _source(given.path)
    made = version.commit(source, message=given.message, tag=given.tag, summary=_figures(source, given.path))
    print(f"{made.name}  {made.commit[:10]}  {made.message}")
    return 0


def _figures(source: Source, path: str) -> Mapping[str, Any] | None:
    """Figures of an audit of the dataset as it is now; none where it was never audited."""
    if not (state.reports_dir(source) / "report.json").exists():
        return None
    from dataaudit import pipeline

    settings = config.find(path)
    report = pipeline.audit(
        path, select=settings.select, ignore=settings.ignore, settings=settings.settings,
        backbone=settings.backbone, baseline=settings.baseline, detector=settings.detector,
        device=settings.device, options=settings.options, format=source.format,
    )  # fmt: skip
    return figures_of(report)


def figures_of(report: Report) -> dict[str, Any]:
    """The figures of a report that a version keeps as DVC metrics."""
    counts: dict[str, int] = dict.fromkeys(report.outcomes, 0)
    expected = 0.0
    for item in report.items:
        if item.decision != "keep":
            counts[item.code] += 1
            expected += item.probability or 0.0
    return {
        "findings": counts,
        "images": len(report.tables.images),
        "classes": len(report.tables.classes),
        "expected_errors": round(expected, 1),
    }


def _version_list(given: argparse.Namespace) -> int:
    from dataaudit import version

    made = version.versions(given.path)
    for each in made:
        counts = ", ".join(
            f"{key} {value}" for key, value in each.counts.items() if not isinstance(value, dict)
        )
        print(f"{each.name:8} {each.commit[:10]}  {each.date:%Y-%m-%d %H:%M}  {each.message.splitlines()[0]}"
              f"{f'  ({counts})' if counts else ''}")  # fmt: skip
    if not made:
        _say("There are no versions yet. Make one: dataaudit version commit " + given.path + " -m MESSAGE")
    return 0


def _version_diff(given: argparse.Namespace) -> int:
    from dataaudit import version

    found = version.diff(given.path, given.a, given.b)
    print(found.to_text() if given.format == "text" else json.dumps(found.to_dict(), indent=2))
    return 0


def _version_compare(given: argparse.Namespace) -> int:
    from dataaudit import version
    from dataaudit.version.place import locate

    settings = config.find(given.path)
    source = locate(given.path)
    found = version.compare(
        source, given.versions, mlflow=given.mlflow, backbone=given.backbone or settings.backbone,
        device=given.device or settings.device,
    )  # fmt: skip
    print(found.to_text() if given.format == "text" else json.dumps(found.to_dict(), indent=2))
    state.prepare(source)
    plot = Path(given.plot) if given.plot else state.reports_dir(source) / "compare.png"
    plot.parent.mkdir(parents=True, exist_ok=True)
    _say(f"Plot: {found.plot(plot)}")
    return 0


def _version_checkout(given: argparse.Namespace) -> int:
    from dataaudit import version

    version.checkout(given.path, given.version, force=given.force)
    _say(f"{given.path} is at {given.version}. git's HEAD and all other files are as they were.")
    return 0


def _version_push(given: argparse.Namespace) -> int:
    from dataaudit import version

    _say(f"Sent {version.push(given.path, given.remote):,} files.")
    return 0


def _version_pull(given: argparse.Namespace) -> int:
    from dataaudit import version

    _say(f"Fetched {version.pull(given.path, given.remote):,} files.")
    return 0


def _show(given: argparse.Namespace) -> int:
    from dataaudit import loading
    from dataaudit.report import show

    options = {**config.find(given.path).options, **_options(given.option)}
    tables = loading.read(given.path, rev=given.rev, format=given.input_format, options=options)
    page = show(tables, n=given.n, seed=given.seed, order=given.order, name=given.name)
    assert tables.source is not None
    if given.output is None:
        state.prepare(tables.source)
    path = page.write(given.output or state.reports_dir(tables.source) / "show.html")
    print(path)
    if given.open:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())
    return 0


def _model(given: argparse.Namespace) -> int:
    check: Callable[[argparse.Namespace], int] = given.run
    return check(given)


def _review(given: argparse.Namespace) -> int:
    from dataaudit import formats, tables
    from dataaudit.report import summarize
    from dataaudit.review import app, desk

    if not given.page:
        threading.Thread(target=_warm_fiftyone, daemon=True).start()
    settings = config.find(given.path)
    given.path = str(Path(given.path).resolve()) if Path(given.path).exists() else given.path
    options = {**settings.options, **_options(given.option)}
    found = formats.read(given.path, format=given.input_format, options=options)
    source = found.source
    assert source is not None
    name = tables.dataset_name(source)
    if not desk.is_ready(source, None if given.page else name):
        _say("There is no audit to review yet, so it is audited first.")
        report = _report(given, settings)
        _write_reports(report, summarize(report), given)
        if not given.page:
            _say(_push(report))
    if given.page:
        return app.open_page(source, browser=not given.no_open)
    order = desk.ordered(
        found, dataset=name, reviewer=given.reviewer, codes=_codes(given.select), second=given.second,
        arguments=_arguments(given), folder=str(Path.cwd()),
    )  # fmt: skip
    return app.serve(
        order, port=given.port, address=given.address, remote=given.remote, browser=not given.no_open
    )


def _arguments(given: argparse.Namespace) -> tuple[str, ...]:
    """The arguments of the command line that say how a dataset is read and judged."""
    names = ("input_format", "option", "annotations", "annotation_column", "pred_probs", "predictions",
             "training_dynamics", "backbone", "baseline", "device")  # fmt: skip
    found: list[str] = []
    for name in names:
        value = getattr(given, name)
        for each in value if isinstance(value, list) else [value] if value is not None else []:
            found += [f"--{name.replace('_', '-')}", str(each)]
    return tuple(found)


def _rule(given: argparse.Namespace) -> int:
    from dataaudit import rules

    print(rules.describe(given.code, markdown=given.format == "markdown"))
    return 0


def _doctor(given: argparse.Namespace) -> int:
    from dataaudit import doctor

    return doctor.print_rows(doctor.examine())


def _demo(given: argparse.Namespace) -> int:
    from dataaudit import demo

    demo.run(Path(given.folder), fiftyone=not given.no_fiftyone)
    return 0
