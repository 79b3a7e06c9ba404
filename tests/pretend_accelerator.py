"""An accelerator that is only pretended: a CPU finds tensors on the wrong device, and traffic.

Inside `pretended()`, tensors moved to `ACCELERATOR` keep their values in a CPU tensor and are
computed by its kernels, but they answer to another device, and what a real one refuses is
refused: an operation on tensors of both devices, a look from numpy, and random numbers from
the CPU's generator. PyTorch's `meta` stands in for it, the one device that needs no driver.

    with pretended() as traffic:
        moved = attack(encoder.to(ACCELERATOR), pixels.to(ACCELERATOR))

What a GPU would be asked to do is counted (`Traffic`), which tells whether the host is in its way
without its clock. Not seen: what only a kernel does differently, streams, pinned memory. Attention
is about eight operations here, where a GPU has one kernel.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

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
_SIZED_BY_VALUES = (
    _aten.nonzero.default, _aten.masked_select.default, _aten._unique2.default,
)  # fmt: skip


@dataclass
class Traffic:
    """What an accelerator was asked to do.

    Attributes:
        launches: operations on it, each at least one kernel.
        waits: times that the host needed a value, or a size that depends on values, and so the
            end of all that was asked before.
        uploads, upload_bytes: copies from the CPU.
    """

    launches: int = 0
    waits: int = 0
    uploads: int = 0
    upload_bytes: int = 0

    def since(self, before: Traffic) -> Traffic:
        """What was asked after a copy of this was taken."""
        return Traffic(*(now - then for now, then in zip(self._all(), before._all(), strict=True)))

    def copy(self) -> Traffic:
        return replace(self)

    def _all(self) -> tuple[int, ...]:
        return self.launches, self.waits, self.uploads, self.upload_bytes

    def upload(self, values: torch.Tensor) -> None:
        self.uploads += 1
        self.upload_bytes += values.numel() * values.element_size()


_open: list[Traffic] = []


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
        _waited()
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
def pretended() -> Iterator[Traffic]:
    """`ACCELERATOR` can be computed on inside; in this thread only."""
    traffic = Traffic()
    _open.append(traffic)
    try:
        with _as_an_accelerator(), _FromNumbers(), _Operations():
            yield traffic
    finally:
        _open.remove(traffic)


@contextmanager
def _as_an_accelerator() -> Iterator[None]:
    """torch offers it what it offers a GPU: autocast, fused and grouped kernels."""
    kernels = [sys.modules["torch.optim.optimizer"], sys.modules["torch.utils._foreach_utils"]]
    with ExitStack() as patched:
        for name in (
            "_get_fused_kernels_supported_devices",
            "_get_foreach_kernels_supported_devices",
        ):
            for module in kernels:
                patched.enter_context(patch.object(module, name, _supported))
        clip = sys.modules["torch.nn.utils.clip_grad"]
        patched.enter_context(patch.object(clip, "_has_foreach_support", lambda *_: True))
        patched.enter_context(patch.object(torch, "autocast", _Autocast))
        yield


def _supported() -> list[str]:
    return ["cuda", "cpu", ACCELERATOR.type]


class _Autocast(torch.autocast):
    """The CPU's, whose kernels compute."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        here = "cpu" if device_type == ACCELERATOR.type else device_type
        super().__init__(here, *args, **kwargs)


def _waited() -> None:
    for traffic in _open:
        traffic.waits += 1


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
    _count(func, args, is_remote, lands_there)
    if asked is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    found = func(*tree_map(_held, args), **tree_map(_held, kwargs))
    if func._schema.is_mutable and func.__name__.partition(".")[0].endswith("_"):
        return args[0] if func._schema.returns else None  # grouped kernels give nothing
    return tree_map(_sent, found) if lands_there and func not in _TO_HOST else found


def _count(func: Any, args: tuple[Any, ...], is_remote: bool, lands_there: bool) -> None:
    """Add an operation to the traffic of every open block."""
    up: list[torch.Tensor] = []
    waits = is_remote and func in (*_TO_HOST, *_SIZED_BY_VALUES)
    if func in (_COPY_INTO, _TO_COPY):
        source = args[1] if func is _COPY_INTO else args[0]
        waits = isinstance(source, Remote) and not lands_there
        up = [source] if lands_there and not isinstance(source, Remote) else []
    elif func in _BY_INDEX and is_remote:
        indices = [index for index in args[1] if index is not None]
        up = [index for index in indices if not isinstance(index, Remote)]
        waits = any(isinstance(i, Remote) and i.dtype == torch.bool for i in indices)
    is_launch = lands_there and not func.is_view and func is not _aten._unsafe_view.default
    for traffic in _open:
        traffic.launches += is_launch
        traffic.waits += waits
        for values in up:
            traffic.upload(values)


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
