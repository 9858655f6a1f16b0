"""Sightline: vision-language models of every family, in one PyTorch library.

`import sightline` loads no torch; each public name is imported on first use.
"""

from typing import TYPE_CHECKING

from sightline.core.lazy import lazy_names
from sightline.core.version import __version__

if TYPE_CHECKING:
    from sightline import data as data
    from sightline.tasks.index import Index as Index
    from sightline.tasks.model import Model as Model
    from sightline.tasks.model import load as load
    from sightline.tasks.pipeline import pipeline as pipeline

_PUBLIC = {
    "Index": "sightline.tasks.index",
    "Model": "sightline.tasks.model",
    "data": "sightline.data",
    "load": "sightline.tasks.model",
    "pipeline": "sightline.tasks.pipeline",
}

__all__ = ["Index", "Model", "__version__", "data", "load", "pipeline"]

__getattr__ = lazy_names(__name__, _PUBLIC)


def __dir__() -> list[str]:
    return sorted(__all__)
