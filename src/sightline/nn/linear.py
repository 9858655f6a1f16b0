"""Linear layers and convolutions that compute in the number type of their own weights.

Precision is a property of the weights: a network whose linear weights were lowered to bfloat16
(`nn.precision.lower`) multiplies in bfloat16, while norms, softmax and the residual stream stay
float32. No context manager and no flag travels through `forward`.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """`torch.nn.Linear` that converts its input to the type of its weight."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d` that converts its input to the type of its weight."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))
