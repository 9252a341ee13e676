"""Backbones without padding: what they compute at a place depends on one window of fixed size and on nothing else.

A convolution that pads sees the border of its input, so a patch cut out of a film gives other features than the same
pixels within the film, and every shift of the patch grid has to be computed anew. Without padding and without
squeeze-excitation, which averages over the whole input, the features of a window are the same wherever its border is:
one pass over a film gives those of the windows at every eighth pixel. This is the fully convolutional evaluation of
OverFeat (Sermanet et al., arXiv 1312.6229), made exact for single patches.
"""

from __future__ import annotations

from torch import Tensor, nn

DENSE_WINDOWS = {"dense32": 32, "dense64": 64}
"""Name of the backbone -> side of its window in pixels, which is also the smallest patch that it takes."""

WIDTHS = (16, 32, 64, 128)
"""Channels after the first, second and third halving of the resolution, and of the last two layers of `dense64`."""


class DenseBackbone(nn.Sequential):
    """(B, 1, H, W) -> (B, width, (H - window) // 8 + 1, (W - window) // 8 + 1); H, W >= window.

    Entry (i, j) of the output depends on the pixels from (8 i, 8 j) on, `window` in both axes, and on no others.
    """

    stride = 8

    def __init__(self, name: str) -> None:
        first, second, third, last = WIDTHS
        layers = [  # receptive field and distance between two outputs, in pixels, after each
            _Layer(1, first, 4, 2),  # 4, 2
            _Layer(first, first, 3, 1),  # 8, 2
            _Layer(first, second, 3, 2),  # 12, 4
            _Layer(second, second, 3, 1),  # 20, 4
            _Layer(second, third, 4, 2),  # 32, 8
        ]
        self.window = DENSE_WINDOWS[name]
        self.width = third
        if self.window == 64:
            layers += [_Layer(third, third, 3, 1), _Layer(third, last, 3, 1)]  # 48, 8 and 64, 8
            self.width = last
        super().__init__(*layers)


class _Layer(nn.Module):
    """Convolution, batch normalisation and ReLU; where shapes allow, on top of the input without its border."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        convolution = nn.Conv2d(inputs, outputs, kernel, stride, bias=False)
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        self.body = nn.Sequential(convolution, nn.BatchNorm2d(outputs))
        self.border = kernel // 2 if stride == 1 and inputs == outputs else 0

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)  # (B, outputs, h, w)
        if self.border:
            inner = slice(self.border, -self.border)
            y = y + x[:, :, inner, inner]
        return y.relu()
