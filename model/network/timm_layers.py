"""The parts of timm that the network is built of, imported without torch's compiler.

timm and torchvision import `torch._dynamo` for two functions that matter only under `torch.compile`. That takes 2.2 of
the 5.6 seconds of processor time in which a process imports the network. So both functions get a stand-in, which imports
the compiler when it is called.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"


def _disable(function: Callable[..., Any], *arguments: Any, **options: Any) -> Callable[..., Any]:
    """Stands in for `torch._dynamo.disable`."""

    @wraps(function)
    def disabled(*args: Any, **kwargs: Any) -> Any:
        import torch._dynamo

        disable: Callable[..., Any] = torch._dynamo.disable
        return disable(function, *arguments, **options)(*args, **kwargs)

    return disabled


def _is_compile_supported(device_type: str) -> bool:
    """Stands in for `torch._dynamo.utils.is_compile_supported`."""
    import torch._dynamo.utils

    return bool(torch._dynamo.utils.is_compile_supported(device_type))


@contextmanager
def _compiler_imported_when_called() -> Iterator[None]:
    if COMPILER in sys.modules:
        yield
        return
    compiler, utils = ModuleType(COMPILER), ModuleType(f"{COMPILER}.utils")
    vars(compiler).update(disable=_disable, utils=utils)
    vars(utils).update(is_compile_supported=_is_compile_supported)
    stand_ins = {module.__name__: module for module in (compiler, utils)}
    sys.modules |= stand_ins
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]


with _compiler_imported_when_called():
    from timm.layers.norm import LayerNorm
    from timm.layers.patch_embed import PatchEmbed
    from timm.models.vision_transformer import Block

__all__ = ["Block", "LayerNorm", "PatchEmbed"]
