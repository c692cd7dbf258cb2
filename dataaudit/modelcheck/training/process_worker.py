"""One of several processes: ``python -m dataaudit.modelcheck.training.process_worker FOLDER RANK``."""

from __future__ import annotations

import json
import sys
import traceback
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

__all__ = ["main"]


def main(folder: Path, rank: int) -> int:
    """Do what the job in `folder` asks of this process, and leave the result there; 0 unless it failed."""
    job = json.loads((folder / "job.json").read_text())
    sys.path[:0] = [path for path in job["path"] if path not in sys.path]
    import torch
    from torch import distributed

    torch.set_num_threads(1)
    backend = "nccl" if torch.cuda.device_count() >= job["world"] else "gloo"
    distributed.init_process_group(
        backend, init_method=f"file://{folder / 'store'}", rank=rank, world_size=job["world"],
        timeout=timedelta(seconds=job["seconds"]),
    )  # fmt: skip
    try:
        result = _work(folder, rank, job)
    except Exception as error:
        text = "".join(traceback.format_exception(error)[-4:])
        (folder / f"failed-{rank}.json").write_text(
            json.dumps({"type": type(error).__name__, "message": str(error), "traceback": text})
        )
        return 1
    torch.save(result, folder / f"result-{rank}.part")
    (folder / f"result-{rank}.part").rename(folder / f"result-{rank}.pt")
    distributed.destroy_process_group()
    return 0


def _work(folder: Path, rank: int, job: dict[str, Any]) -> dict[str, Any]:
    import torch
    from torch.nn.parallel import DistributedDataParallel

    from dataaudit.modelcheck import loading
    from dataaudit.modelcheck.inputs import tensors
    from dataaudit.modelcheck.training.processes import digests, figures, one_pass

    # The file was written by the process that started this one, a moment ago
    given = torch.load(folder / "given.pt", weights_only=False)
    model = given["model"] if job["model"] is None else loading.load_model(job["model"])
    model.load_state_dict(given["state"])
    model.train()
    if job["seed"]:
        loading.load_callable(job["seed"], what="set-up function of the rank")(rank)
    else:
        torch.manual_seed(rank)
    draw = torch.rand(4).tolist()
    if job["wrap"]:
        wrapped = loading.load_callable(job["wrap"], what="function that wraps the model")(model)
    else:
        wrapped = DistributedDataParallel(model, find_unused_parameters=job["unused"])
    inputs, targets = given["parts"][rank]
    loss = given["loss"] if job["loss"] is None else loading.load_callable(job["loss"], what="loss")
    loader = []
    if job["loader"]:
        batches = loading.load_callable(job["loader"], what="loader of rank and processes")(
            rank, job["world"]
        )
        for batch in batches:
            loader += digests(next(iter(tensors(batch)), torch.zeros(0)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = one_pass(wrapped, loss, inputs, targets, without_dropout=True)
        found = figures(model, value)
        if not job["unused"]:
            # Weights that take no part show in the second step only
            one_pass(wrapped, loss, inputs, targets, without_dropout=True)
    return {**found, "draw": draw, "loader": loader}


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), int(sys.argv[2])))
