"""Training on some of the patches, for speed."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sightline.core.errors import ConfigError


class PatchDropout(nn.Module):
    """In training, each picture goes on with a random part of its patches (FLIP).

    Li et al. 2023, "Scaling Language-Image Pre-training via Masking", arXiv:2212.00794, section 3:
    half or three quarters of the patches are left out, the text stays whole, and a tower costs
    about as much less. Nothing is left out in evaluation. The patches come with their positions
    already added, stay in their order, and are drawn for each picture anew from torch's global
    generator, as dropout is.

    Args:
        prefix: tokens in front of the patches that always stay (a class token).
    """

    def __init__(self, *, prefix: int = 0) -> None:
        super().__init__()
        self.prefix = prefix
        self.share = 0.0

    def leave_out(self, share: float) -> None:
        """Set the share of the patches that training leaves out; at least one patch stays.

        Raises:
            ConfigError: not from 0 up to below 1.
        """
        if not 0 <= share < 1:
            raise ConfigError(f"patch dropout {share}: leave out a share from 0 up to below 1")
        self.share = share

    def forward(self, tokens: Float[Tensor, "B L D"]) -> Float[Tensor, "B R D"]:
        if not self.training or not self.share:
            return tokens
        patches = tokens.shape[1] - self.prefix
        kept = max(1, round(patches * (1 - self.share)))
        order = torch.rand(len(tokens), patches, device=tokens.device).argsort(dim=1)  # [B P]
        chosen = order[:, :kept].sort(dim=1).values + self.prefix  # [B kept]
        rows = torch.arange(len(tokens), device=tokens.device)[:, None]
        return torch.cat([tokens[:, : self.prefix], tokens[rows, chosen]], dim=1)  # [B R D]
