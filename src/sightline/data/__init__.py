"""What a network learns from and is scored on: records, the formats people have, the drawn park.

Knows pictures, captions, questions, boxes and masks; must not know any network, objective or task.
"""

from typing import TYPE_CHECKING

from sightline.core.lazy import lazy_names

if TYPE_CHECKING:
    from sightline.data import park as park

__all__ = ["park"]

__getattr__ = lazy_names(__name__, {"park": "sightline.data.park"})


def __dir__() -> list[str]:
    return sorted(__all__)
