"""One of several processes: ``python -m dataaudit.modelcheck.training.process_worker FOLDER RANK``."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

__all__ = ["main"]


def main(folder: Path, rank: int) -> int:
    """Do what the job in `folder` asks of this process, and leave the result there; 0 unless it failed."""
    job = json.loads((folder / "job.json").read_text())
    threading.Thread(target=_watch, args=(job["seconds"], os.getppid()), daemon=True).start()
    sys.path[:0] = [path for path in job["path"] if path not in sys.path]
    import torch
    from torch import distributed

    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False
    if job["devices"][rank] != "cpu":
        torch.cuda.set_device(job["devices"][rank])
    distributed.init_process_group(
        job["backend"], init_method=f"file://{folder / 'store'}", rank=rank, world_size=job["world"],
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


def _watch(seconds: float, parent: int) -> None:
    """End this process when its time is up or the one that started it is gone, whatever it waits for."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and os.getppid() == parent:
        time.sleep(0.5)
    os._exit(124)


def _work(folder: Path, rank: int, job: dict[str, Any]) -> dict[str, Any]:
    import torch
    from torch.nn.parallel import DistributedDataParallel

    from dataaudit.modelcheck import loading
    from dataaudit.modelcheck.inputs import move
    from dataaudit.modelcheck.training.process_loaders import read_loader
    from dataaudit.modelcheck.training.processes import figures, one_pass

    device = torch.device(job["devices"][rank])
    # The file was written by the process that started this one, a moment ago
    given = torch.load(folder / "given.pt", weights_only=False, map_location="cpu")
    model = given["model"] if job["model"] is None else loading.load_model(job["model"])
    model.load_state_dict(given["state"])
    model.to(device).train()
    if job["seed"]:
        loading.load_callable(job["seed"], what="set-up function of the rank")(rank)
    else:
        torch.manual_seed(rank)
    draw = torch.rand(4).tolist()
    if job["wrap"]:
        wrapped = loading.load_callable(job["wrap"], what="function that wraps the model")(model)
    else:
        wrapped = DistributedDataParallel(model)
    inputs, targets = move(given["parts"][rank], device)
    loss = given["loss"] if job["loss"] is None else loading.load_callable(job["loss"], what="loss")
    loss = loss.to(device) if isinstance(loss, torch.nn.Module) else loss
    loader: dict[str, Any] = {}
    if job["loader"]:
        make = loading.load_callable(job["loader"], what="loader of rank and processes")
        loader = read_loader(make, rank, job["world"], seconds=job["seconds"] / 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = one_pass(wrapped, loss, inputs, targets, without_dropout=True)
        found = figures(model, value)
        # Weights that take no part show in the second step only
        one_pass(wrapped, loss, inputs, targets, without_dropout=True)
    broadcast = getattr(wrapped, "broadcast_buffers", False)
    return {**found, "draw": draw, "loader": loader, "broadcast": bool(broadcast)}


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), int(sys.argv[2])))
