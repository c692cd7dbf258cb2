"""Whatever user code does to a model in a check, and wherever it raises, the model is as before."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from dataaudit.errors import InputError
from dataaudit.modelcheck import determinism, loss_inputs, trace
from dataaudit.modelcheck.keeping import kept


class Net(nn.Module):
    """All that can be left behind: buffers, counters, a list, a tied weight, an own generator."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(4, 4)
        self.head.weight = self.body[0].weight
        self.seen: list[int] = []
        self.steps = 1000
        self.average = {"head": torch.zeros(4)}
        self.draws = torch.Generator().manual_seed(3)
        self.register_buffer("scale", torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        self.seen.append(self.steps)
        return self.head(self.body(x)) * self.scale


def bits(value: Any) -> Any:
    """`value` as something that equals only what is the same bit by bit."""
    if isinstance(value, torch.Tensor):
        held = value.detach()
        return tuple(held.shape), held.dtype, held.numpy().tobytes(), id(value), value.requires_grad
    if isinstance(value, dict):
        return [(str(key), bits(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return [bits(item) for item in value]
    return value


def state(model: Net, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    hooks = [
        {name: len(held) for name, held in vars(part).items() if name.endswith("_hooks")}
        for part in model.modules()
    ]
    return {
        "names": [name for name, _ in model.named_modules()],
        "parts": [id(part) for part in model.modules()],
        "tensors": bits([*model.parameters(), *model.buffers()]),
        "names_of_tensors": [name for name, _ in [*model.named_parameters(), *model.named_buffers()]],
        "gradients": bits([one.grad for one in model.parameters()]),
        "hooks_of_tensors": [len(one._backward_hooks or {}) for one in model.parameters()],
        "modes": [part.training for part in model.modules()],
        "hooks": hooks,
        "own": (list(model.seen), model.steps, bits(model.average), bits(model.draws.get_state().clone())[2]),
        "optimizer": bits(
            [list(held.items()) for held in optimizer.state.values()]
            + [[(name, one) for name, one in group.items()] for group in optimizer.param_groups]
        ),
        "random": (
            random.getstate(), str(np.random.get_state()), bytes(torch.get_rng_state().numpy()),
            torch.is_grad_enabled(), torch.get_default_dtype(), torch.is_autocast_enabled("cpu"),
            torch.are_deterministic_algorithms_enabled(), torch.get_num_threads(),
            torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, torch.is_anomaly_enabled(),
            len(nn.modules.module._global_forward_hooks),
        ),
    }  # fmt: skip


Act = Callable[[Net, torch.optim.Optimizer], object]


def train(model: Net, optimizer: torch.optim.Optimizer) -> None:
    model(torch.randn(3, 4)).square().mean().backward()
    optimizer.step()


def freeze(model: Net, _: torch.optim.Optimizer) -> None:
    for one in model.parameters():
        one.requires_grad_(False)


def hook(model: Net, _: torch.optim.Optimizer) -> None:
    model.head.register_forward_hook(lambda *_: None)
    model.head.bias.register_hook(lambda gradient: gradient * 2)
    model.head.bias.register_post_accumulate_grad_hook(lambda _: None)
    nn.modules.module.register_module_forward_hook(lambda *_: None)


def swap(model: Net, _: torch.optim.Optimizer) -> None:
    model.head = nn.Linear(4, 2)
    model.body.append(nn.ReLU())
    del model.scale


def resize(model: Net, _: torch.optim.Optimizer) -> None:
    model.head.bias.data = torch.zeros(9)
    model.body[0].bias.data = model.body[0].bias.data.double()


def settle(model: Net, _: torch.optim.Optimizer) -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.set_autocast_enabled("cpu", True)
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.deterministic = True
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)


def draw(model: Net, _: torch.optim.Optimizer) -> None:
    torch.rand(3, generator=model.draws)
    model.average["head"] += 1
    model.average["other"] = torch.ones(1)


def regroup(model: Net, optimizer: torch.optim.Optimizer) -> None:
    optimizer.param_groups[0]["lr"] = 7.0
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})
    optimizer.state.clear()


def spoil(model: Net, _: torch.optim.Optimizer) -> None:
    with torch.no_grad():
        for one in model.parameters():
            one.fill_(float("nan"))
            one.grad = None


ACTS: tuple[Act, ...] = (
    train, freeze, hook, swap, resize, settle, draw, regroup, spoil,
    lambda model, _: model.eval(),
    lambda model, _: model.body[1].eval(),
    lambda model, _: model.zero_grad(),
    lambda model, _: model.double(),
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=st.lists(st.sampled_from(ACTS), max_size=6), raises=st.booleans(), trained=st.booleans())
def test_everything_is_bit_equal_after_any_user_code(acts: list[Act], raises: bool, trained: bool) -> None:
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    if trained:
        train(model, optimizer)
    before = state(model, optimizer)
    with contextlib.suppress(Exception), kept(model, optimizer):
        for act in acts:
            act(model, optimizer)
        if raises:
            raise ValueError("in the user's code")
    assert state(model, optimizer) == before


def test_the_exception_of_the_user_comes_through() -> None:
    with pytest.raises(ValueError, match="mine"), kept(nn.Linear(2, 2)):
        raise ValueError("mine")


def test_a_pending_gradient_can_still_be_computed_afterwards() -> None:
    model = nn.Linear(2, 1)
    loss = model(torch.ones(1, 2)).sum()
    with kept(model):
        model.weight.data.fill_(9.0)
        model.zero_grad()
    loss.backward()
    assert model.weight.grad is not None
    assert model.weight.grad.tolist() == [[1.0, 1.0]]


def test_inputs_that_a_model_changes_in_place_are_put_back() -> None:
    x = torch.ones(3)
    with kept(x):
        x.mul_(2)
    assert x.tolist() == [1.0, 1.0, 1.0]


def test_state_can_be_put_back_in_between() -> None:
    model = nn.BatchNorm1d(2)
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    with kept(model) as state:
        model(x)
        changed = model.running_mean.tolist()
        state.restore()
        assert changed != model.running_mean.tolist() == [0.0, 0.0]


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_torchscript_is_put_back() -> None:
    model = torch.jit.script(nn.BatchNorm1d(2))
    with kept(model):
        model.train()(torch.randn(4, 2))
        model.eval()
    assert model.training
    assert model.running_mean.tolist() == [0.0, 0.0]


def test_a_lazy_layer_has_to_be_called_first() -> None:
    with pytest.raises(InputError, match="lazy layer that has no weights yet"), kept(nn.LazyLinear(3)):
        pass


class Raising(nn.Module):
    """Raises in its n-th call, after it changed what it could."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.calls, self.after = 0, after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.layer.bias.data += 1
        out = self.norm(self.layer(x))
        x.mul_(2)
        torch.rand(1)
        if self.calls >= self.after:
            raise ValueError("in the user's forward")
        return out


CHECKS: dict[str, Callable[[nn.Module, torch.Tensor], object]] = {
    "determinism": lambda model, x: determinism(model, x, real=True),
    "trace": trace,
    "loss": lambda model, x: loss_inputs(model, nn.CrossEntropyLoss(), x, torch.arange(len(x))),
}


@settings(max_examples=30, deadline=None)
@given(check=st.sampled_from(sorted(CHECKS)), after=st.integers(1, 12), training=st.booleans())
def test_a_check_leaves_everything_bit_equal_also_where_the_model_raises(
    check: str, after: int, training: bool
) -> None:
    torch.manual_seed(0)
    model, x = Raising(after).train(training), torch.rand(3, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def now() -> object:
        tensors = [*model.parameters(), *model.buffers(), x]
        return bits(tensors), model.calls, [part.training for part in model.modules()], hooks(model), rng()

    before = now()
    with contextlib.suppress(InputError):
        CHECKS[check](model, x)
    assert now() == before
    assert [one.grad for one in model.parameters()] == [None] * 4
    assert not optimizer.state


def hooks(model: nn.Module) -> list[int]:
    return [len(held) for part in model.modules() for name, held in vars(part).items() if "hooks" in name]


def rng() -> object:
    return random.getstate(), str(np.random.get_state()), bytes(torch.get_rng_state().numpy())
