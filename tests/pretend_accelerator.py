"""An accelerator that is only pretended, so that a CPU finds tensors on the wrong device.

Inside `pretended()`, tensors moved to `ACCELERATOR` keep their values in a CPU tensor and are
computed by its kernels, but they answer to another device, and what a real one refuses is
refused: an operation on tensors of both devices, a look from numpy, and random numbers from
the CPU's generator. PyTorch's `meta` stands in for it, the one device that needs no driver.

    with pretended():
        moved = attack(encoder.to(ACCELERATOR), pixels.to(ACCELERATOR))
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

ACCELERATOR = torch.device("meta")
_aten = torch.ops.aten
_TO_COPY, _COPY_INTO = _aten._to_copy.default, _aten.copy_.default
_BY_INDEX = (
    _aten.index.Tensor, _aten._unsafe_index.Tensor,
    _aten.index_put.default, _aten.index_put_.default,
)  # fmt: skip
_TO_HOST = (_aten._local_scalar_dense.default, _aten.equal.default)  # give numbers, not tensors


class Remote(torch.Tensor):
    """A tensor of the accelerator.

    Attributes:
        held: the CPU tensor with its values.
    """

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> Remote:
        made: Remote = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(),
            dtype=held.dtype, device=ACCELERATOR, requires_grad=held.requires_grad,
        )  # fmt: skip
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})

    @property
    def is_meta(self) -> bool:
        """False: loading of weights skips tensors without values, which `meta` means."""
        return False

    def tolist(self) -> Any:
        return self.held.tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("numpy cannot see a tensor of the accelerator; move it with .cpu()")

    __array__ = numpy


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


class _FromNumbers(TorchFunctionMode):
    """`torch.tensor(numbers, device=...)`, which no operation is told of."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and _is_there(kwargs.get("device")):
            return func(*args, **{**kwargs, "device": "cpu"}).to(kwargs["device"])
        return func(*args, **kwargs)


@contextmanager
def pretended() -> Iterator[None]:
    """`ACCELERATOR` can be computed on inside; in this thread only."""
    with _FromNumbers(), _Operations():
        yield


def _is_there(device: Any) -> bool:
    return device is not None and torch.device(device).type == ACCELERATOR.type


def _computed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The operation on the values, its result on the device where a real one would leave it."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    is_remote = any(isinstance(tensor, Remote) for tensor in tensors)
    asked = kwargs.get("device")
    lands_there = is_remote if asked is None else _is_there(asked)
    if func is _COPY_INTO:
        lands_there = isinstance(args[0], Remote)
    elif func is not _TO_COPY and is_remote:
        _check_together(func, args, tensors)
    generator = kwargs.get("generator")
    if lands_there and generator is not None and generator.device.type == "cpu":
        raise RuntimeError(f"{func}: the accelerator draws from no generator of the CPU")
    if asked is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    found = func(*tree_map(_held, args), **tree_map(_held, kwargs))
    if func._schema.is_mutable and func.__name__.partition(".")[0].endswith("_"):
        return args[0]
    return tree_map(_sent, found) if lands_there and func not in _TO_HOST else found


def _check_together(func: Any, args: tuple[Any, ...], tensors: list[torch.Tensor]) -> None:
    """Refuse tensors of both devices, but for single numbers and indices of the CPU."""
    concerned = [args[0], *args[2:3]] if func in _BY_INDEX else tensors
    here = [t for t in concerned if not isinstance(t, Remote) and t.ndim > 0]
    if here:
        raise RuntimeError(
            f"{func}: expected tensors of one device; some lie on the accelerator, and on the CPU "
            f"those of shape {', '.join(str(tuple(t.shape)) for t in here)}"
        )


def _held(leaf: Any) -> Any:
    return leaf.held if isinstance(leaf, Remote) else leaf


def _sent(leaf: Any) -> Any:
    return Remote(leaf) if isinstance(leaf, torch.Tensor) else leaf
