"""Calling a model that somebody else wrote: the one place where its forward pass runs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, fx, nn

from certmix import guard
from certmix.errors import CertmixError, ModelError, ParameterError, describe

_LARGEST: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
"""Rows that a model which fails in larger batches takes at once, as far as was found out."""
_WARNED: WeakKeyDictionary[nn.Module, set[str]] = WeakKeyDictionary()
"""What was said of a model."""
_NAMES: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()
"""What messages call a model."""
_NO_ROOM = (
    "out of memory", "cublas_status_alloc_failed", "cublas_status_not_initialized",
    "cudnn_status_alloc_failed", "cudnn_status_not_supported", "unable to find an engine to execute",
    "unable to find a valid cudnn algorithm",
)  # fmt: skip
"""What CUDA's libraries say, each in its way, where a device has no room for a batch or its workspace."""
NAMED = ("logits", "prediction_logits")
"""Under which attribute or key models return their logits among other things."""


class ModelWarning(UserWarning):
    """A model changes its input in place, which is a copy, or returns its logits among other things."""


class OutOfMemoryError(ModelError, torch.OutOfMemoryError):
    """A forward pass did not fit into the device's memory."""


def call_model(model: Callable[[Tensor], Any], inputs: Tensor, name: str | None = None) -> Tensor:
    """Run a model on a copy of a batch and return its logits; gradients flow through.

    The copy is on the model's device, in the floating dtype of its parameters, so that a model that writes
    into its input harms nobody else.  A batch that is too large for the model is run in parts of one size,
    the last of which overlaps the one before.  Within `torch.compile`, `torch.fx` and `torch.func` the model
    is called as it is.

    `model` gives floating-point logits (N, classes), a tensor or an array, each row of its own input of
    `inputs` (N, ...) alone, or something that holds them, see `logits_of`; they come back on the device of
    `inputs`, finite or not.  `name` is what a message calls the model, by
    default the name that it was given by `call_it`.
    ParameterError if `inputs` is no tensor with a row an input, OutOfMemoryError if memory is lacking, and
    ModelError if the model fails however few rows it gets, or returns something else.  A ModelWarning, once,
    of a model that changes its input in place, and of what was taken of an output that holds more.
    """
    traced = torch.compiler.is_compiling() or isinstance(inputs, fx.Proxy)
    if traced or (isinstance(inputs, Tensor) and torch._C._functorch.is_functorch_wrapped_tensor(inputs)):
        output = model(inputs)  # its values are not there to look at
        return output if isinstance(output, fx.Proxy) else logits_of(output)[0]  # type: ignore[return-value]
    name = name or name_of(model)
    if not isinstance(inputs, Tensor) or inputs.ndim == 0:
        found = "a single number" if isinstance(inputs, Tensor) else f"of type {type(inputs).__name__}"
        raise ParameterError(f"the inputs of {name} are {found}: give a tensor of shape (N, ...)")
    most = _LARGEST.get(model, len(inputs)) if isinstance(model, nn.Module) else len(inputs)
    if len(inputs) > most:
        return _in_parts(model, inputs, most, name)
    given = _own_copy(model, inputs)
    version, failure = given._version, None
    try:
        with guard.foreign(name):
            logits = model(given)
    except CertmixError:
        raise
    except BaseException as error:
        guard.keep_interrupt(error)
        if has_no_room(error):
            told = "" if isinstance(error, torch.OutOfMemoryError) else f" ({describe(error)})"
            raise OutOfMemoryError(
                f"{name} runs out of memory with {len(inputs)} inputs at once{told}: give a smaller batch "
                "size, or use --device cpu"
            ) from error
        failure = error
    if given._version != version:
        _warn(
            model, "in place",
            f"{name} changes its input in place: certmix gives it a copy, so results stand; elsewhere it "
            "harms its caller: let it begin with x = x.clone()",
        )  # fmt: skip
    if failure is None:
        logits, taken = logits_of(logits)
        checked = _checked(logits, len(inputs), name, taken)
        if taken:
            _warn(model, taken, f"{name} returns more than logits: {taken} is taken, the rest left")
        return checked.to(inputs.device)
    remedy = _values_remedy(model, inputs, failure)
    most = 0 if remedy else len(inputs) // 2
    while most and not _works(model, inputs[:most]):
        most //= 2
    if most:
        logits = _in_parts(model, inputs, most, name)
        if isinstance(model, nn.Module):
            _LARGEST[model] = min(most, _LARGEST.get(model, most))
        return logits
    shape, kind = tuple(inputs.shape), str(inputs.dtype).removeprefix("torch.")
    remedy = remedy or _shape_remedy(model, inputs, failure)
    raise ModelError(f"{name} fails on inputs {shape} {kind}: {describe(failure)}: {remedy}") from failure


def has_no_room(error: BaseException) -> bool:
    """Return whether a device's memory is too small for a batch, as far as what is said shows.

    cuDNN says "not supported" of what its workspace has no room for, and of what it cannot do at all: a
    smaller batch shows which.
    """
    said = str(error).lower() if isinstance(error, RuntimeError) else ""
    return isinstance(error, torch.OutOfMemoryError) or any(words in said for words in _NO_ROOM)


def backward(*given: Any, **more: Any) -> Any:
    """Return what `torch.autograd.grad` does: a model's own backward passes run in it, and may hang."""
    with guard.foreign("the gradient of a model"):
        return torch.autograd.grad(*given, **more)


def call_it(model: nn.Module, name: str) -> None:
    """Give a model the name that messages have for it."""
    _NAMES[model] = name


def name_of(model: object) -> str:
    """Return what messages call a model."""
    return _NAMES.get(model, "the model") if isinstance(model, nn.Module) else "the model"


def logits_of(output: Any) -> tuple[Any, str]:
    """Return the logits in what a model returns, a tensor where they can be one, and where they were found.

    They are under a name in `NAMED`, or the first of a tuple or list; "" where the output is the logits.
    """
    for name in () if isinstance(output, Tensor) else NAMED:
        if isinstance(output, Mapping) and name in output:
            return output[name], f"its [{name!r}]"
        if hasattr(output, name):
            return getattr(output, name), f"its .{name}"
    if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor | np.ndarray):
        return _tensor(output[0]), f"the first of its {len(output)}" if len(output) > 1 else ""
    return _tensor(output), ""


def _tensor(value: Any) -> Any:
    """Return arrays, and lists of lists of numbers, as a tensor."""
    if isinstance(value, Tensor) or not (hasattr(value, "__array__") or isinstance(value, list)):
        return value
    try:
        return torch.from_numpy(np.array(value))
    except (TypeError, ValueError, RuntimeError):  # of texts or objects, or ragged
        return value


def _warn(model: object, of: str, told: str) -> None:
    """Warn of a model, once `of` each thing."""
    said = _WARNED.setdefault(model, set()) if isinstance(model, nn.Module) else set()
    if of not in said:
        said.add(of)
        warnings.warn(told, ModelWarning, stacklevel=3)


def call_both(
    standard: Callable[[Tensor], Any], robust: Callable[[Tensor], Any], inputs: Tensor
) -> tuple[Tensor, Tensor]:
    """Return both classifiers' logits; see `call_model`."""
    g = call_model(standard, inputs, "the standard model")
    h = call_model(robust, inputs, "the robust model")
    check_gradients({"standard": (standard, g), "robust": (robust, h)}, inputs)
    return g, h


def check_gradients(models: Mapping[str, tuple[Callable[[Tensor], Any], Tensor]], inputs: Tensor) -> None:
    """Refuse a model that leaves torch, where inputs want a gradient: ModelError.

    The gradient of the mix would be that of the other model alone.
    """
    if not (torch.is_grad_enabled() and inputs.requires_grad):
        return
    for name, (model, logits) in models.items():
        parts = model.modules() if isinstance(model, nn.Module) else ()
        if not logits.requires_grad and any(getattr(part, "on_arrays", False) for part in parts):
            raise ModelError(
                f"the {name} model computes outside torch, so that the mix has no gradient: attack without "
                "gradients by square"
            )


def know_alike(copy: nn.Module, model: nn.Module) -> None:
    """Let what was found out about a model hold for a copy of it."""
    for found in (_LARGEST, _NAMES, _WARNED):
        if model in found:
            found[copy] = found[model]  # type: ignore[index, assignment]


def _parameter(model: object) -> Tensor | None:
    """Return a floating-point parameter of a module, or of the module that a callable holds."""
    module = model if isinstance(model, nn.Module) else getattr(model, "module", None)
    parameters = module.parameters() if isinstance(module, nn.Module) else ()
    return next((one for one in parameters if one.is_floating_point()), None)


def _own_copy(model: object, inputs: Tensor) -> Tensor:
    """Return a copy that the model may write into and that counts how often it does."""
    like = _parameter(model)
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():  # tensors made in it count nothing
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
        if like is not None:
            moved = inputs.to(like.device, like.dtype if inputs.is_floating_point() else inputs.dtype)
            if moved is not inputs:
                return moved
        return inputs.clone()


def _checked(logits: Any, rows: int, name: str, taken: str = "") -> Tensor:
    """Refuse what is no floating-point tensor of a row an input."""
    where = f" as {taken}" if taken else ""
    if not isinstance(logits, Tensor):
        kind = type(logits).__name__
        raise ModelError(
            f"{name} returns {kind}{where}: return a tensor or an array of shape ({rows}, classes), or "
            "something with .logits"
        )
    if logits.ndim != 2 or len(logits) != rows:
        raise ModelError(
            f"{name} returns shape {tuple(logits.shape)}{where}, expected ({rows}, classes): return one row "
            "an input"
        )
    if not logits.is_floating_point():
        remedy = "return the scores"
        raise ModelError(f"{name} returns {logits.dtype}{where}, expected floating-point logits: {remedy}")
    return logits


def _in_parts(model: Callable[[Tensor], Any], inputs: Tensor, most: int, name: str) -> Tensor:
    """Run parts of `most` rows each; the last one ends with the batch."""
    starts = range(0, len(inputs), most)
    parts = [inputs[min(start, len(inputs) - most) :][:most] for start in starts]
    logits = [call_model(model, part, name) for part in parts]
    logits[-1] = logits[-1][len(starts) * most - len(inputs) :]
    return torch.cat(logits)


def _works(model: Callable[[Tensor], Any], inputs: Tensor) -> bool:
    try:
        with guard.foreign(name_of(model)):
            _checked(logits_of(model(_own_copy(model, inputs)))[0], len(inputs), "")
    except BaseException as error:
        guard.keep_interrupt(error)
        return False
    return True


def _values_remedy(model: Callable[[Tensor], Any], inputs: Tensor, failure: BaseException) -> str:
    """Return what to do about a failure that smaller batches would not mend, or nothing."""
    if isinstance(failure, SystemExit):
        return "a model must not end the program; remove the call of sys.exit"
    if not isinstance(failure, Exception):
        return "it is meant for another program than this; let the model raise no such thing"
    if guard.lacks_memory(failure) or not inputs.is_floating_point() or not inputs.numel():
        return ""
    low, high = (float(value.detach()) for value in inputs.aminmax())
    if (low >= 0 and high <= 1) or not _works(model, inputs.clamp(0, 1)) or _works(model, inputs):
        return ""  # the last of those that fail once and no more
    return (
        f"it takes inputs in [0, 1] and refuses others, as noise makes them (here {low:.3g} to {high:.3g}): "
        "remove its check of the range, or let it begin with x = x.clamp(0, 1)"
    )


def _shape_remedy(model: Callable[[Tensor], Any], inputs: Tensor, failure: BaseException) -> str:
    """Return what to do about a model that takes none of the inputs."""
    if guard.lacks_memory(failure):
        return "even a single input is too many: give fewer --workers, free memory, or use a smaller model"
    if not inputs.is_floating_point():
        return "give floating-point inputs in the range of the model's training, such as x / 255"
    like = _parameter(model)
    if like is not None and like.dtype in (torch.float16, torch.bfloat16):
        return f"its weights are {str(like.dtype).removeprefix('torch.')}: call .float() on it"
    if inputs.ndim == 4 and inputs.shape[3] in (1, 3) and inputs.shape[1] not in (1, 3):
        return "these look channels last: save (N, C, H, W), e.g. transpose(0, 3, 1, 2)"
    if isinstance(failure, RecursionError):
        return "let it call itself less deep"
    return "the inputs must be of the shape the model takes, and a batch of any size"
