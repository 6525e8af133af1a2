"""A multilayer perceptron with skips and bounded slope, and its gradient written out."""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SLACK = 1.0 - 1e-6  # so that rounding to single precision cannot break the bound


class BoundedMLP(nn.Module):
    """h₁ = tanh(W₀z + b₀), h_{l+1} = h_l + tanh(W_l h_l + b_l), y = w·h + b, with every ‖W‖₂ at most `bound`.

    While training each matrix is divided by its spectral norm's estimate where that exceeds the bound (power iteration,
    one step a call); in evaluation mode by the exact one; `fold` writes the result into the weights, after which both
    are the weights themselves.

    Parameters
    ----------
    n_inputs, width, depth : int
        Depth counts the layers with a tanh.
    bound : float
        Largest spectral norm of a layer.
    """

    def __init__(self, n_inputs: int, width: int, depth: int, bound: float) -> None:
        super().__init__()
        self.bound = bound
        self._folded = False
        sizes = [n_inputs] + [width] * (depth - 1)
        self.hidden = nn.ModuleList(nn.Linear(n, width) for n in sizes)
        self.output = nn.Linear(width, 1)
        for n, layer in enumerate(self.layers):
            # Later layers start small, so that the skips do not let the sum grow with depth.
            nn.init.orthogonal_(layer.weight, 1.0 if n == 0 else 0.5)
            nn.init.zeros_(layer.bias)
            vector = torch.randn(layer.weight.shape[1])
            self.register_buffer(f"power_{n}", vector / vector.norm(), persistent=False)

    @property
    def layers(self) -> list[nn.Linear]:
        """All linear layers, the output's last."""
        return [*self.hidden, self.output]

    @torch.no_grad()
    def fold(self) -> None:
        """Scale the weights so that they keep the bound by themselves."""
        for layer in self.layers:
            norm = torch.linalg.matrix_norm(layer.weight.double(), 2)
            if float(norm) > self.bound:
                layer.weight.mul_((self.bound * _SLACK / norm).to(layer.weight.dtype))
        self._folded = True

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; weights about to change are folded no longer."""
        self._folded = self._folded and not mode
        return super().train(mode)

    def effective(self, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
        """Weights and biases as they act, the bound included."""
        if self._folded:
            return [(layer.weight.to(dtype), layer.bias.to(dtype)) for layer in self.layers]
        found = []
        for n, layer in enumerate(self.layers):
            weight = layer.weight
            if self.training:
                norm = self._estimate(n, weight.detach())
            else:
                norm = torch.linalg.matrix_norm(weight.detach(), 2)
            scale = (self.bound / norm).clamp(max=1.0)
            found.append(((weight * scale).to(dtype), layer.bias.to(dtype)))
        return found

    @torch.no_grad()
    def _estimate(self, n: int, weight: Tensor) -> Tensor:
        vector = getattr(self, f"power_{n}").to(weight.dtype)
        image = weight @ vector
        back = weight.T @ image
        getattr(self, f"power_{n}").copy_(back / back.norm().clamp_min(1e-30))
        return image.norm()

    def forward(self, z: Tensor) -> Tensor:
        """y of z (..., n_inputs), shape (...)."""
        return self._run(z, self.effective(z.dtype))[0]

    def with_gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """y (n,) and dy/dz (n, n_inputs) of z (n, n_inputs), both differentiable by the weights.

        Written out, so that training by forces needs one backward pass and not two.
        """
        layers = self.effective(z.dtype)
        *hidden, (w_out, _) = layers
        y, images = self._run(z, layers)
        g = w_out.expand(len(z), -1)
        for image, (weight, _) in zip(images[:0:-1], hidden[:0:-1]):
            g = g + (g * (1.0 - image * image)) @ weight
        return y, (g * (1.0 - images[0] * images[0])) @ hidden[0][0]

    @staticmethod
    def _run(z: Tensor, layers: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, list[Tensor]]:
        """The output, and each layer's tanh."""
        *hidden, (w_out, b_out) = layers
        images: list[Tensor] = []
        h = z
        for weight, bias in hidden:
            images.append(torch.tanh(F.linear(h, weight, bias)))
            h = h + images[-1] if len(images) > 1 else images[-1]
        return F.linear(h, w_out, b_out).squeeze(-1), images
