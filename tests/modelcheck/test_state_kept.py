"""Every check of the model side leaves all of a set-up as it was, wherever the user's code raises."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dataaudit.errors import DataAuditError
from dataaudit.modelcheck import (
    determinism,
    gradients,
    loss_inputs,
    overfit,
    parity,
    processes,
    rate_range,
    sanity,
    trace,
)
from dataaudit.modelcheck.baselines import predict
from dataaudit.modelcheck.deployment.converting import convert
from dataaudit.modelcheck.inputs import Batch, input_shape
from dataaudit.modelcheck.modes import train_eval

CLASSES = 3


class Mine(Exception):
    """What the user's code raises."""


class Alarm:
    """Raises at one place after some calls there; before that, user code changes what it likes."""

    def __init__(self, place: str, after: int) -> None:
        self.place, self.after, self.calls = place, after, 0

    def __call__(self, place: str) -> None:
        torch.rand(1), np.random.rand(), random.random()
        if place != self.place:
            return
        self.calls += 1
        if self.calls > self.after:
            torch.set_default_dtype(torch.float64)
            torch.use_deterministic_algorithms(True)
            raise Mine(place)


class Net(nn.Module):
    """A small network with what makes state hard to keep."""

    def __init__(self, alarm: Alarm, parts: frozenset[str]) -> None:
        super().__init__()
        self.alarm, self.parts, self.seen, self.steps = [alarm], parts, [], 1000
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4) if "norm" in parts else nn.Identity()
        self.drop = nn.Dropout(0.5) if "dropout" in parts else nn.Identity()
        self.again = nn.Conv2d(4, 3, 3, padding=1, bias=False)
        if "shared" in parts:
            self.again.weight = nn.Parameter(self.conv.weight.detach().transpose(0, 1).contiguous())
            self.twin = self.again.weight
        self.head = nn.Linear(3, CLASSES)
        self.register_buffer("scale", torch.ones(1))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        if "counting" in self.parts:
            self.count += 1
            self.seen.append(float(x.detach().sum()))
            self.scale = self.scale * 0.99
        x = self.drop(torch.relu(self.norm(self.conv(x))))
        if x.requires_grad:
            x.register_hook(lambda gradient: self.alarm[0]("backward"))
        if "inplace" in self.parts:
            x = x.mul(1).mul_(2)
        self.alarm[0]("forward")
        return self.head(self.again(x).mean((2, 3))) * self.scale


class Descent(torch.optim.SGD):
    """An optimizer of the user's that may raise in the middle of a step."""

    alarm: Alarm

    def step(self, closure: Any = None) -> Any:
        done = super().step(closure)
        self.alarm("optimizer")
        return done


@dataclass
class Case:
    """A set-up of a user's, in the middle of a training."""

    model: Net
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    batch: Batch
    optimizer: torch.optim.Optimizer
    folder: Path

    def made(self, model: nn.Module) -> torch.optim.Optimizer:
        """An optimizer made in the check, by a function that changes the model."""
        torch.rand(1)
        self.model.conv.bias.requires_grad_(False)
        self.model.alarm[0]("optimizer")
        return torch.optim.AdamW([one for one in model.parameters() if one.requires_grad])

    def whole_step(self, model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any) -> torch.Tensor:
        optimizer.zero_grad()
        value = self.loss(model(batch[0]), batch[1])
        value.backward()
        optimizer.step()
        return value


PARTS = (
    "norm",
    "dropout",
    "shared",
    "counting",
    "inplace",
    "frozen",
    "gradients",
    "mixed",
    "hooks",
    "trained",
)
PLACES = ("nowhere", "forward", "loss", "backward", "optimizer")


def case_of(place: str, after: int, parts: frozenset[str], folder: Path) -> Case:
    torch.manual_seed(0)
    alarm = Alarm("nowhere", 0)
    model = Net(alarm, parts)
    x, y = torch.rand(6, 3, 6, 6), torch.arange(6) % CLASSES

    def loss(out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        model.alarm[0]("loss")
        return nn.functional.cross_entropy(out, target)

    if "frozen" in parts:
        model.conv.weight.requires_grad_(False)
    optimizer = Descent(model.parameters(), lr=0.05, momentum=0.9)
    optimizer.alarm = alarm
    if "trained" in parts:
        for _ in range(2):
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()
        optimizer.zero_grad()
    if "gradients" in parts:
        loss(model(x), y).backward()
    if "mixed" in parts:
        model.norm.eval()
        model.head.eval()
    if "hooks" in parts:
        model.head.register_forward_hook(lambda *_: None)
        model.head.register_full_backward_hook(lambda *_: None)
        model.head.weight.register_hook(lambda gradient: gradient)
    model.alarm[0] = alarm
    alarm.place, alarm.after = place, after
    return Case(model, loss, Batch(inputs=x, targets=y, real=True), optimizer, folder)


CHECKS: dict[str, Callable[[Case], object]] = {
    "determinism": lambda case: determinism(case.model, case.batch),
    "trace": lambda case: trace(case.model, case.batch),
    "trace in train mode": lambda case: trace(case.model, case.batch, train=True),
    "train against eval": lambda case: train_eval(case.model, case.batch.inputs),
    "input shape": lambda case: input_shape(case.model),
    "loss inputs": lambda case: loss_inputs(case.model, case.loss, case.batch),
    "gradients": lambda case: gradients(case.model, case.loss, case.batch, optimizer=case.optimizer),
    "gradients of a step": lambda case: gradients(
        case.model, None, case.batch, train_step=case.whole_step, optimizer=case.optimizer
    ),
    "overfit": lambda case: overfit(
        case.model, case.loss, case.batch, optimizer=case.optimizer, seconds=0.3
    ),
    "overfit with a made optimizer": lambda case: overfit(
        case.model, case.loss, case.batch, optimizer=case.made, seconds=0.3
    ),
    "rates": lambda case: rate_range(
        case.model, case.loss, case.batch, optimizer=case.optimizer, steps=10
    ),
    "rates with a made optimizer": lambda case: rate_range(
        case.model, case.loss, case.batch, optimizer=case.made, steps=10
    ),
    "parity": lambda case: parity(case.model, lambda x: case.model(x) + 0.1, case.batch, timed=False),
    "baseline": lambda case: predict(case.model, case.folder, shape=(3, 6, 6)),
    "sanity": lambda case: sanity(
        case.model, case.loss, case.batch, optimizer=case.optimizer, seconds=1.0
    ),
    "sanity of a step": lambda case: sanity(
        case.model, None, case.batch, train_step=case.whole_step, optimizer=case.made, seconds=1.0
    ),
}  # fmt: skip


def bits(value: Any) -> Any:
    """`value` as something that equals only what is the same object with the same bits."""
    if isinstance(value, torch.Tensor):
        held = value.detach()
        return id(value), tuple(held.shape), held.dtype, held.numpy().tobytes(), value.requires_grad
    if isinstance(value, dict):
        return [(str(key) if isinstance(key, str) else id(key), bits(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return [bits(item) for item in value]
    return value


def everything(case: Case) -> dict[str, Any]:
    """All that a check could leave behind."""
    model, optimizer = case.model, case.optimizer
    parts = list(model.modules())
    return {
        "weights and buffers": bits(list(model.state_dict(keep_vars=True).items())),
        "gradients": bits([one.grad for one in model.parameters()]),
        "batch": bits([case.batch.inputs, case.batch.targets]),
        "modes": [part.training for part in parts],
        "modules": [(name, id(part)) for name, part in model.named_modules()],
        "hooks": [
            (name, [(key, id(one)) for key, one in held.items()])
            for part in parts
            for name, held in vars(part).items()
            if name.endswith("_hooks")
        ],
        "hooks of tensors": [
            (list(one._backward_hooks or {}), list(one._post_accumulate_grad_hooks or {}))
            for one in model.parameters()
        ],
        "own attributes": (list(model.seen), model.steps, model.alarm[0].calls),
        "optimizer": bits([dict(optimizer.state), optimizer.param_groups]),
        "hooks of the optimizer": [
            list(held) for name, held in vars(optimizer).items() if name.endswith("_hooks")
        ],
        "random numbers": (random.getstate(), str(np.random.get_state()), bytes(torch.get_rng_state())),
        "settings": settings_of_torch(),
    }


def settings_of_torch() -> dict[str, Any]:
    module = nn.modules.module
    return {
        "gradients": torch.is_grad_enabled(), "inference": torch.is_inference_mode_enabled(),
        "dtype": torch.get_default_dtype(), "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "filled": torch.utils.deterministic.fill_uninitialized_memory,
        "autocast": [torch.is_autocast_enabled(device) for device in ("cpu", "cuda")],
        "autocast_cache": torch.is_autocast_cache_enabled(),
        "anomaly": (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        "precision": torch.get_float32_matmul_precision(), "benchmark": torch.backends.cudnn.benchmark,
        "cudnn": (torch.backends.cudnn.deterministic, torch.backends.cudnn.enabled),
        "modes": (torch._C._len_torch_function_stack(), torch._C._len_torch_dispatch_stack()),
        "global_hooks": [
            len(value) for name, value in vars(module).items() if "_global_" in name and "hooks" in name
        ],
    }  # fmt: skip


@pytest.mark.parametrize("check", CHECKS)
@settings(max_examples=5, deadline=None)
@given(
    place=st.sampled_from(PLACES), after=st.integers(0, 6), parts=st.frozensets(st.sampled_from(PARTS)),
    mode=st.booleans(), off=st.booleans(),
)  # fmt: skip
def test_a_check_leaves_all_of_a_set_up_as_it_was(
    digit_folder: Path, check: str, place: str, after: int, parts: frozenset[str], mode: bool, off: bool
) -> None:
    case = case_of(place, after, parts, digit_folder)
    if not mode:
        case.model.eval()
    with torch.set_grad_enabled(not off):
        before = everything(case)
        with contextlib.suppress(DataAuditError, Mine, RuntimeError, TypeError):
            CHECKS[check](case)
        after_it = everything(case)
    different = [name for name, value in before.items() if after_it[name] != value]
    assert different == []


def test_several_processes_leave_all_of_a_set_up_as_it_was(tmp_path: Path) -> None:
    case = case_of("nowhere", 0, frozenset({"norm", "shared", "trained", "gradients", "mixed"}), tmp_path)
    case.model.alarm[0].place = "forward"
    before = everything(case)
    with contextlib.suppress(DataAuditError, Mine):
        processes(case.model, case.loss, case.batch, seconds=20)
    assert everything(case) == before


def test_a_model_is_as_before_after_it_was_converted(tmp_path: Path) -> None:
    case = case_of("nowhere", 0, frozenset({"norm", "dropout", "trained", "gradients"}), tmp_path)
    before = everything(case)
    with contextlib.suppress(DataAuditError):
        convert(case.model, "float16", case.batch, tmp_path)
    assert everything(case) == before
