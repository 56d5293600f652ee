"""Super-resolution: five networks, bundled weights, the papers' tables.

    import srcli
    larger = srcli.upscale("photo.png", model="mrnet", scale=4)

The names below load on first use, so that `import srcli` costs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Upscaler", "__version__", "load_model", "upscale"]

if TYPE_CHECKING:
    from srcli.inference.upscaler import Upscaler, upscale
    from srcli.pretrained.loading import load_model

_HOMES = {
    "Upscaler": "srcli.inference.upscaler",
    "upscale": "srcli.inference.upscaler",
    "load_model": "srcli.pretrained.loading",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the public name is
    from importlib import import_module  # noqa: PLC0415 - only when a name is used

    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'srcli' has no attribute {name!r}")
