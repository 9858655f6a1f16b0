"""Linear layers and convolutions that compute in the number type of their own weights.

Precision is a property of the weights: a network whose linear weights were lowered to bfloat16
(`nn.precision.lower`) multiplies in bfloat16, while norms, softmax and the residual stream stay
float32. No context manager and no flag travels through `forward`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """`torch.nn.Linear` that converts its input to the type it multiplies in."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.to(product_type(self.weight)), self.weight, self.bias)


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d` that converts its input to the type it multiplies in."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(product_type(self.weight)))


class TokenTable(Linear):
    """One vector a token, for looking tokens up and, where the two are tied, for scoring them.

    Args:
        vocab_size: V.
        width: D.
        scale: factor on a vector that is looked up, rounded to the weight's type as in training.
    """

    def __init__(self, vocab_size: int, width: int, scale: float = 1.0) -> None:
        super().__init__(width, vocab_size, bias=False)
        self.scale = scale

    def look_up(self, ids: Tensor) -> Tensor:
        """int64[*B] to float[*B, D], float32 or wider."""
        rows = F.embedding(ids, self.weight)
        rows = rows.float() if rows.dtype in (torch.bfloat16, torch.float16) else rows
        scale = torch.tensor(self.scale, dtype=self.weight.dtype).item()
        return rows if self.scale == 1.0 else rows * scale


def product_type(weight: Tensor) -> torch.dtype:
    """The type that products with this weight are computed in: its own, or autocast's.

    Under autocast an input that went to the weight's float32 would come back at once.
    """
    device = weight.device.type
    if weight.dtype == torch.float32 and device != "meta" and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return weight.dtype
