"""Why an operation gives something else in a deployed graph: settings, weights, types, by looking at both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from dataaudit.modelcheck.deployment.differences import relative
from dataaudit.modelcheck.deployment.values import Departure, Step, Values
from dataaudit.modelcheck.families import dep
from dataaudit.registry import Rule

__all__ = ["NODES", "Cause", "cause", "overflow"]

# What an operation of PyTorch usually becomes
NODES = {
    "convolution": ("Conv", "ConvTranspose", "QLinearConv", "ConvInteger"), "addmm": ("Gemm", "MatMul"),
    "linear": ("Gemm", "MatMul"), "mm": ("MatMul", "Gemm"), "bmm": ("MatMul",), "matmul": ("MatMul",),
    "native_batch_norm": ("BatchNormalization",), "cudnn_batch_norm": ("BatchNormalization",),
    "_native_batch_norm_legit_no_training": ("BatchNormalization",),
    "native_layer_norm": ("LayerNormalization",), "native_group_norm": ("GroupNormalization",
    "InstanceNormalization"), "gelu": ("Gelu", "Erf", "Tanh"), "leaky_relu": ("LeakyRelu",), "elu": ("Elu",),
    "_softmax": ("Softmax",), "softmax": ("Softmax",), "max_pool2d_with_indices": ("MaxPool",),
    "max_pool2d": ("MaxPool",), "avg_pool2d": ("AveragePool",),
    "mean": ("ReduceMean", "GlobalAveragePool"), "_adaptive_avg_pool2d": ("GlobalAveragePool", "AveragePool"),
    "upsample_bilinear2d": ("Resize", "Upsample"), "upsample_nearest2d": ("Resize", "Upsample"),
    "upsample_bicubic2d": ("Resize", "Upsample"), "_upsample_bilinear2d_aa": ("Resize",),
    "hardtanh": ("Clip",), "clamp": ("Clip",), "relu": ("Relu",), "relu_": ("Relu",),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Cause:
    """A likely cause: what it is, what to change, and its rule where it is none of the numbers'."""

    what: str
    advice: str
    rule: Rule | None = None


def cause(here: Values, there: Values, step: Step, node: Step) -> Cause:
    """The likely cause of a departure at `step` of the trained model, which `node` of the deployed is for."""
    for look in (_weights, _resize, _pool, _normalise, _axis, _approximation, _clip, _lower, _quantised):
        found = look(here, there, step, node)
        if found is not None:
            return found
    return Cause(
        what="",
        advice=f"Compare the settings of {node.op} with the operation's; try another opset or exporter.",
    )


def overflow(step: Step, dtype: torch.dtype, largest: float | None) -> Departure:
    """A node that writes NaN or infinity."""
    kind = str(dtype).removeprefix("torch.")
    what = f"{step.title} is the first to write NaN or infinity, in {kind}"
    if largest is not None:
        what += f"; the trained model reaches {largest:,.4g} there"
    beyond = largest is not None and dtype == torch.float16 and largest > 65_504
    if beyond:
        what += ", and float16 ends at 65,504 (overflow)"
    advice = (
        f"Keep {step.scope or step.title} in float32, use bfloat16, or scale what goes into it."
        if dtype in (torch.float16, torch.bfloat16)
        else "Look for a division, logarithm or root there, and at its weights."
    )
    return Departure(
        title=step.scope or step.title, sentence=what + ".", advice=advice, rule=dep.NONFINITE_OUTPUT,
        evidence={"node": step.title, "largest": largest, "type": kind},
    )  # fmt: skip


def _weights(here: Values, there: Values, step: Step, node: Step) -> Cause | None:
    """Other weights of the same shape: another checkpoint."""
    ours = {
        name: here.weights[name] for name in step.inputs if name in here.weights and here.weights[name].ndim
    }
    theirs = {
        name: there.weights[name]
        for name in node.inputs
        if name in there.weights and there.weights[name].ndim
    }
    for name, weight in ours.items():
        same = [
            one
            for one in theirs.values()
            if one.shape in (weight.shape, weight.t().shape if weight.ndim == 2 else None)
        ]
        named = theirs.get(name)
        if named is not None and named.shape == weight.shape:
            same = [named]
        if not same or weight.ndim < 1:
            continue
        gaps = [
            min(relative(weight, one), relative(weight.t(), one) if weight.ndim == 2 else 9.0) for one in same
        ]
        if min(gaps) <= _tolerance(same[0].dtype) or _is_fused(weight, same, here, step):
            continue
        return Cause(
            what=f"Its weights {name} aren't the trained model's (by {min(gaps):.2g} of the largest).",
            advice="Export the checkpoint that you compare with, and check that all of its keys were loaded.",
            rule=dep.OTHER_WEIGHTS,
        )  # fmt: skip
    return None


def _tolerance(dtype: torch.dtype) -> float:
    return 1e-4 if dtype in (torch.float32, torch.float64) else 2e-2


def _is_fused(weight: torch.Tensor, others: list[torch.Tensor], here: Values, step: Step) -> bool:
    """Whether batch norm was folded into them: each output channel is a multiple of the trained weight's."""
    if weight.ndim < 2:
        return False
    reads = [one for one in here.steps if set(one.inputs) & set(step.outputs)]
    if not any("batch_norm" in one.op for one in reads):
        return False
    flat = weight.reshape(len(weight), -1).double()
    for other in others:
        if other.shape != weight.shape:
            continue
        theirs = other.reshape(len(weight), -1).double()
        scale = (flat * theirs).sum(1, keepdim=True) / flat.pow(2).sum(1, keepdim=True).clamp_min(1e-30)
        if relative(theirs, flat * scale) < 1e-3:
            return True
    return False


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _resize(here: Values, there: Values, step: Step, node: Step) -> Cause | None:
    if node.op != "Resize" or "upsample" not in step.op:
        return None
    mode = _text(node.settings.get("mode", b"nearest"))
    corner = _text(node.settings.get("coordinate_transformation_mode", b"half_pixel"))
    wanted = "linear" if "linear" in step.op else "cubic" if "cubic" in step.op else "nearest"
    aligned = bool(step.settings.get("align_corners", False))
    fits = "align_corners" if aligned else ("asymmetric" if wanted == "nearest" else "half_pixel")
    said = []
    if mode != wanted:
        said.append(f"mode {mode} in place of {wanted}")
    if wanted != "nearest" and corner.replace("pytorch_", "") != fits:
        said.append(f"coordinates {corner} in place of {fits}")
    if wanted == "nearest" and corner not in ("asymmetric", "half_pixel"):
        said.append(f"coordinates {corner} in place of {fits}")
    rounding = _text(node.settings.get("nearest_mode", b"round_prefer_floor"))
    if wanted == "nearest" and rounding != "floor":
        said.append(f"nearest_mode {rounding} in place of floor")
    if ("_aa" in step.op) != bool(node.settings.get("antialias", 0)):
        said.append(f"antialias {'lost' if '_aa' in step.op else 'added'}")
    if not said:
        return None
    return Cause(
        what=f"Resize works with {', '.join(said)}.",
        advice="Export with opset 19 or later, and give interpolate() the settings that the deployment has.",
    )


def _pool(here: Values, there: Values, step: Step, node: Step) -> Cause | None:
    if node.op not in ("MaxPool", "AveragePool"):
        return None
    said = []
    pairs = (("ceil_mode", False, 0), ("count_include_pad", True, 0))
    for name, default, other in pairs:
        if name == "count_include_pad" and node.op == "MaxPool":
            continue
        ours, theirs = bool(step.settings.get(name, default)), bool(node.settings.get(name, other))
        padded = any(step.settings.get("padding", ()) or ())
        if ours != theirs and (name != "count_include_pad" or padded):
            said.append(f"{name}={theirs} in place of {ours}")
    for key, name in (("kernel_size", "kernel_shape"), ("stride", "strides")):
        a, b = list(step.settings.get(key) or ()), list(node.settings.get(name, ()))
        if a and b and a != b and a * 2 != b:
            said.append(f"{name} {b} in place of {a}")
    return _settings(node, said)


def _normalise(here: Values, there: Values, step: Step, node: Step) -> Cause | None:
    if "norm" not in step.op or "Normalization" not in node.op:
        return None
    if bool(node.settings.get("training_mode", 0)):
        return Cause(what="It normalises by the batch, as in training.", rule=dep.TRAIN_MODE,
                     advice="Call model.eval() before the export.")  # fmt: skip
    ours, theirs = step.settings.get("eps"), node.settings.get("epsilon", 1e-5)
    if isinstance(ours, float) and abs(ours - theirs) > 0.01 * max(ours, theirs):
        return _settings(node, [f"epsilon {theirs:.3g} in place of {ours:.3g}"])
    return None


def _axis(here: Values, there: Values, step: Step, node: Step) -> Cause | None:
    if "softmax" not in step.op or "oftmax" not in node.op or "dim" not in step.settings:
        return None
    ndim = here.values[step.outputs[0]].ndim
    ours, theirs = int(step.settings["dim"]) % ndim, int(node.settings.get("axis", -1)) % ndim
    return _settings(node, [f"axis {theirs} in place of {ours}"] if ours != theirs else [])


def _approximation(here: Values, there: Values, step: Step, node: Step) -> Cause | None:
    if "gelu" in step.op:
        ours = str(step.settings.get("approximate", "none"))
        theirs = _text(node.settings.get("approximate", b"none")) if node.op == "Gelu" else (
            "tanh" if node.op == "Tanh" else "none")  # fmt: skip
        return _settings(node, [f"approximation {theirs} in place of {ours}"] if ours != theirs else [])
    if "leaky_relu" in step.op and node.op == "LeakyRelu":
        slope = float(step.settings.get("negative_slope", 0.01))
        alpha = float(node.settings.get("alpha", 0.01))
        differ = abs(slope - alpha) > 1e-6
        return _settings(node, [f"slope {alpha:.3g} in place of {slope:.3g}"] if differ else [])
    return None


def _clip(here: Values, there: Values, step: Step, node: Step) -> Cause | None:
    kinds = ("relu", "hardtanh", "clamp")
    if node.op == "Clip" and not any(kind in step.op for kind in kinds):
        return Cause(what="It cuts values off.", advice="Check the range of the quantisation or of the Clip.")
    return None


def _settings(node: Step, said: list[str]) -> Cause | None:
    if not said:
        return None
    return Cause(
        what=f"{node.op} has {', '.join(said)}.",
        advice="Export again with the current exporter and opset, and check what changed the graph after it.",
    )


def _lower(here: Values, there: Values, step: Step, node: Step) -> Cause | None:
    """A node in half precision."""
    types = {there.values[name].dtype for name in node.outputs if name in there.values}
    low = types & {torch.float16, torch.bfloat16}
    if not low:
        return None
    kind = str(low.pop()).removeprefix("torch.")
    top = float(here.values[step.outputs[0]].abs().max())
    return Cause(
        what=f"It is computed in {kind}; values reach {top:,.4g}.",
        advice=f"Keep {step.scope or 'it'} in float32.",
    )


def _quantised(here: Values, there: Values, step: Step, node: Step) -> Cause | None:
    """A quantisation on the way whose range is too small for the values."""
    value = here.values[step.outputs[0]]
    after = [one for one in there.steps if set(one.inputs) & set(node.outputs)]
    for one in (node, *after):
        if one.op not in ("QuantizeLinear", "QLinearConv", "DequantizeLinear", "QLinearMatMul"):
            continue
        got = next((there.values[name] for name in node.outputs if name in there.values), None)
        if got is None or not got.is_floating_point() or not got.numel():
            continue
        top, theirs = float(value.abs().max()), float(got.abs().max())
        if theirs < 0.8 * top:
            return Cause(
                what=f"The quantised range ends at {theirs:.3g}, and values reach {top:.3g}.",
                advice="Calibrate with images of the deployment, or quantise this layer channel by channel.",
            )
    quantised = node.op.startswith("QLinear") or node.op in ("DequantizeLinear", "QuantizeLinear")
    if not quantised:
        return None
    return Cause(
        what="It is quantised, and its scale is too coarse for the values.",
        advice="Quantise its weights channel by channel, or keep it in float.",
    )
