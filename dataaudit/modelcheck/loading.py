"""A user's model and functions: ``module:attribute``, a file of a whole module, or TorchScript."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from dataaudit.errors import InputError, nearest
from dataaudit.modelcheck.findings import line_of, said

__all__ = ["from_spec", "load_callable", "load_model"]

_FILES = (".pt", ".pth", ".ckpt", ".bin", ".torchscript", ".ts", ".jit")
_HOW = "Write module:attribute, such as mymodule:make_model, or the path of a .pt file of a whole module."


def load_model(spec: str | nn.Module) -> nn.Module:
    """The model that `spec` names.

    Args:
        spec: ``module:attribute`` or ``file.py:attribute``, looked up from the current folder, where the
            attribute is a module or a function or class that makes one without arguments; ``timm:NAME`` or
            ``torchvision:NAME``, with random weights; a file written by ``torch.save(model)`` or
            ``torch.jit.save``; or a module, which is handed back.

    Returns:
        The model, in the mode that it was made in.

    Raises:
        InputError: no such module, attribute or file; a factory that raises or needs arguments; or something
            that isn't a ``torch.nn.Module``.
    """
    if isinstance(spec, nn.Module):
        return spec
    if Path(spec).suffix.lower() in _FILES:
        return _from_file(Path(spec))
    library, colon, name = spec.partition(":")
    if colon and library in ("timm", "torchvision"):
        return _from_library(library, name)
    made = from_spec(spec)
    if not isinstance(made, nn.Module) and callable(made):
        made = _call(made, spec)
    if not isinstance(made, nn.Module):
        raise InputError(
            f"{spec} is a {type(made).__name__}; expected a torch.nn.Module, or a function that makes one."
            + (
                " It looks like a state_dict, which holds weights without the model."
                if _is_state(made)
                else ""
            )
        )
    return made


def load_callable(spec: str, *, what: str = "function") -> Any:
    """The function or object that ``module:attribute`` names, such as a loss; a class is called.

    Raises:
        InputError: no such module or attribute, or it can't be called.
    """
    found = from_spec(spec)
    if inspect.isclass(found):
        found = _call(found, spec)
    if not callable(found):
        raise InputError(f"{spec} is a {type(found).__name__}; expected a {what}.")
    return found


def from_spec(spec: str) -> Any:
    """What ``module:attribute`` names, with the current folder first on the path.

    Raises:
        InputError: not of that form, no such module or attribute, or the module raises while it is imported.
    """
    name, colon, attribute = spec.rpartition(":")
    if not colon or not name or not attribute:
        raise InputError(f"{spec!r} names no model.", fix=_HOW)
    module = _module(name, spec)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            known = [each for each in vars(module) if not each.startswith("_")]
            raise InputError(f"{name} has no {attribute!r}. {nearest(part, known)}")
        found = getattr(found, part)
    return found


def _module(name: str, spec: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        return _from_path(Path(name)) if name.endswith(".py") else importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise InputError(
                f"There is no module {name!r}, seen from {here}.",
                fix="Run it in the folder of the module, install the package, or give the file: path/to/"
                f"{name.replace('.', '/')}.py:{spec.rpartition(':')[2]}",
            ) from error
        raise InputError(
            f"{name} imports {error.name}, which isn't installed.", where=line_of(error) or name
        ) from error
    except Exception as error:
        raise InputError(f"Importing {name} raised {said(error)}", where=line_of(error) or name) from error


def _from_path(file: Path) -> ModuleType:
    if not file.is_file():
        raise InputError(f"There is no file {file}.", fix=_HOW)
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    found = importlib.util.spec_from_file_location(file.stem, file)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[file.stem] = module
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[file.stem]
        raise
    return module


def _call(factory: Any, spec: str) -> Any:
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        signature = inspect.Signature()
    needed = [
        name
        for name, parameter in signature.parameters.items()
        if parameter.default is parameter.empty and parameter.kind not in (2, 4)
    ]
    if needed:
        raise InputError(
            f"{spec} needs arguments: {', '.join(needed)}.",
            fix="Write a function without arguments that makes it: def make_model(): return "
            f"{spec.rpartition(':')[2]}({', '.join(f'{name}=...' for name in needed)})",
        )
    try:
        return factory()
    except Exception as error:
        raise InputError(f"{spec} raised {said(error)}", where=line_of(error)) from error


def _from_library(library: str, name: str) -> nn.Module:
    if library == "timm":
        import timm

        if not timm.is_model(name):
            raise InputError(f"timm has no model {name!r}. {_close(name, timm.list_models())}")
        made: nn.Module = timm.create_model(name, pretrained=False)
        return made
    import torchvision

    known = torchvision.models.list_models()
    if name not in known:
        raise InputError(f"torchvision has no model {name!r}. {_close(name, known)}")
    builder = torchvision.models.get_model_builder(name)
    # A detection model downloads the weights of its backbone unless it is told not to
    parts = inspect.signature(builder).parameters
    made = builder(**{part: None for part in ("weights", "weights_backbone") if part in parts})
    assert isinstance(made, nn.Module)
    return made


def _close(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.4)
    return f"Near it: {', '.join(near)}." if near else f"It has {len(known):,} others."


def _from_file(file: Path) -> nn.Module:
    if not file.is_file():
        raise InputError(f"There is no file {file}.", fix=_HOW)
    try:
        load: Callable[..., nn.Module] = torch.jit.load
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # that TorchScript is on its way out
            return load(str(file), map_location="cpu")
    except (RuntimeError, ValueError):
        pass
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"{file} is no TorchScript, and reading it as a whole module would run code that it holds: "
            f"{said(error)}",
            fix="If you trust the file, load it yourself: def make_model(): return torch.load("
            f"{str(file)!r}, weights_only=False), and give module:make_model.",
        ) from error
    if isinstance(found, nn.Module):
        return found
    raise InputError(
        f"{file} holds a {type(found).__name__}"
        + (", weights without the model." if _is_state(found) else "; expected a torch.nn.Module."),
        fix="Write a function that makes the model and loads them: def make_model(): model = MyModel(); "
        f"model.load_state_dict(torch.load({str(file)!r})); return model",
    )


def _is_state(thing: Any) -> bool:
    """Whether `thing` holds weights alone, perhaps inside a checkpoint."""
    if not isinstance(thing, dict):
        return False
    return any(isinstance(value, (torch.Tensor, dict)) for value in thing.values())
