"""What a run begins with: a network and all that makes a model of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sightline.hub.bundled import tuned_card
from sightline.inputs.processors import Processor

if TYPE_CHECKING:
    from sightline.core.interfaces import System
    from sightline.hub.adapters import Origin
    from sightline.hub.load import Loaded
    from sightline.tasks.model import Model


@dataclass
class Start:
    """A network with all that makes a model of it, before its first step."""

    network: nn.Module
    processor: Processor
    config: Any
    system: System
    adapter: Origin | None = None
    """What the adapter that learns is for; None where there is none that could be saved."""
    card: Mapping[str, Any] | None = None
    """What the model's card says."""
    beside: Mapping[str, Path] | None = None
    """Folders that belong to the model, by their names in its own."""

    @classmethod
    def tuning(cls, loaded: Loaded) -> Start:
        """A whole model, ready to learn on."""
        network = loaded.network.requires_grad_(True)
        card = tuned_card(loaded)
        return cls(network, loaded.processor, loaded.config, loaded.system, card=card)

    def as_model(self, name: str, folder: Path = Path(".")) -> Model:
        """The network behind the public methods, for evaluation; shares the weights."""
        from sightline.hub.load import Loaded
        from sightline.tasks.model import Model

        device = next(self.network.parameters()).device
        return Model(
            Loaded(
                network=self.network, processor=self.processor, config=self.config,
                system=self.system, name=name, revision=None, folder=folder, device=device,
                dtype=torch.float32, bundled=False, domain=None,
            )
        )  # fmt: skip

    def save_all(self, folder: Path) -> None:
        """Write `folder/model`, additions merged, and `folder/adapter` with the additions alone."""
        from sightline.hub.adapters import save_adapter

        self.save(folder / "model")
        if self.adapter is not None:
            save_adapter(self.network, self.system, self.config, folder / "adapter", self.adapter)

    def save(self, folder: Path) -> None:
        """Write the folder that `sightline.load` and transformers read."""
        from sightline.hub.save import save_checkpoint

        save_checkpoint(
            self.network, self.processor, self.config, self.system, folder,
            metadata=self.card or None, beside=self.beside,
        )  # fmt: skip
