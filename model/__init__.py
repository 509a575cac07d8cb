"""RefCut: click segmentation steered by a reference mask on another image. Knows nothing of Label Studio.

The names below are the library's face; `docs/model.md` shows them in use. They are imported when first used (PEP 562), so
that a process which needs only a part of the library does not import torch.

    >>> from model import Click, RefCutPredictor, load_network
    >>> predictor = RefCutPredictor(load_network())                             # doctest: +SKIP
    >>> predictor.set_image(image_rgb)                                          # doctest: +SKIP
    >>> mask_hw = predictor.predict([Click(row=120, col=45)]).mask_hw           # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model.checkpoints.version_folder import SHIPPED_DIR
    from model.checkpoints.weights import load_network
    from model.errors import ModelError
    from model.network.config import NetworkConfig
    from model.network.prompts import ReferenceTokens
    from model.predictor import RefCutPredictor
    from model.predictor_config import SERVING, PredictorSettings, serving_settings
    from model.runtime.select import with_runtime
    from model.types import Box, Click, MaskResult

__all__ = [
    "SERVING",
    "SHIPPED_DIR",
    "Box",
    "Click",
    "MaskResult",
    "ModelError",
    "NetworkConfig",
    "PredictorSettings",
    "RefCutPredictor",
    "ReferenceTokens",
    "load_network",
    "serving_settings",
    "with_runtime",
]

_MODULES = {
    "model.checkpoints.version_folder": ("SHIPPED_DIR",),
    "model.checkpoints.weights": ("load_network",),
    "model.errors": ("ModelError",),
    "model.network.config": ("NetworkConfig",),
    "model.network.prompts": ("ReferenceTokens",),
    "model.predictor": ("RefCutPredictor",),
    "model.predictor_config": ("SERVING", "PredictorSettings", "serving_settings"),
    "model.runtime.select": ("with_runtime",),
    "model.types": ("Box", "Click", "MaskResult"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'model' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
