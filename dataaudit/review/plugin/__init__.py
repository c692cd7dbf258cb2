"""The plugin of the FiftyOne App: what the review panel asks, and the operators of the operator browser."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types

from dataaudit.review import serving
from dataaudit.review.jobs import TITLES

PANEL = "dataaudit_review"


class Review(foo.Operator):  # type: ignore[misc]
    """What the panel asks of its desk."""

    @property
    def config(self) -> Any:
        """Not for the operator browser."""
        return foo.OperatorConfig(name="review", label="Review", unlisted=True)

    def execute(self, ctx: Any) -> Mapping[str, Any]:
        """Answer a question of the panel; see `dataaudit.review.desk.Desk.answer`."""
        return serving.answer(ctx.dataset_name, ctx.params)


class OpenReview(foo.Operator):  # type: ignore[misc]
    """Opens the panel."""

    @property
    def config(self) -> Any:
        """In the operator browser."""
        return foo.OperatorConfig(name="open_review", label="Review the findings (dataaudit)")

    def execute(self, ctx: Any) -> None:
        """Open the panel beside the samples."""
        ctx.ops.open_panel(PANEL, is_active=True, layout="horizontal")


class _Work(foo.Operator):  # type: ignore[misc]
    """A job of the desk, with its progress and what came of it."""

    job: str
    label: str

    @property
    def config(self) -> Any:
        """In the operator browser, and as a generator, so that its progress is seen."""
        return foo.OperatorConfig(
            name=self.name_of_job, label=f"{self.label} (dataaudit)", execute_as_generator=True
        )

    @property
    def name_of_job(self) -> str:
        """As in fiftyone.yml."""
        return {"apply": "apply_decisions", "commit": "commit_version", "audit": "audit_again"}[self.job]

    def execute(self, ctx: Any) -> Iterator[Any]:
        """Run the job."""
        desk = serving.desk_of(ctx.dataset_name)
        job = desk.start(self.job, message=ctx.params.get("message"))
        while not job.wait(0.5):
            found = job.plain()
            doing = ": ".join(filter(None, (TITLES[self.job], found["doing"])))
            yield ctx.ops.set_progress(label=doing, progress=found["share"])
        found = job.plain()
        yield ctx.ops.set_progress(label="Done", progress=1.0)
        yield ctx.ops.notify(found["message"] or "Done.", variant="success" if found["ok"] else "error")
        yield ctx.ops.reload_dataset()


class ApplyDecisions(_Work):
    """Corrects the files."""

    job, label = "apply", "Apply decisions"


class AuditAgain(_Work):
    """Looks for what is wrong now."""

    job, label = "audit", "Audit again"


class CommitVersion(_Work):
    """Keeps the dataset as it is now."""

    job, label = "commit", "Commit version"

    def resolve_input(self, _: Any) -> Any:
        """Asks for the message."""
        inputs = types.Object()
        inputs.str("message", label="What changed?", required=True)
        return types.Property(inputs, view=types.View(label="Commit version"))


def register(plugin: Any) -> None:
    """Tell FiftyOne what there is."""
    for each in (Review, OpenReview, ApplyDecisions, AuditAgain, CommitVersion):
        plugin.register(each)
