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


class DenseBackbone(nn.Sequential):
    """(B, 1, H, W) -> (B, width, (H - window) // 8 + 1, (W - window) // 8 + 1); H, W >= window.

    Entry (i, j) of the output depends on the pixels from (8 i, 8 j) on, `window` in both axes, and on no others. The
    layers are those of a small EfficientNet (Tan and Le, arXiv 2104.00298), cut to fit the window.
    """

    stride = 8
    width = 256

    def __init__(self, name: str) -> None:
        window = DENSE_WINDOWS[name]
        layers = [  # receptive field and distance between two outputs, in pixels, after each
            _convolution(1, 24, 4, 2),  # 4, 2
            _convolution(24, 16, 3),  # 8, 2
            _Bottleneck(_convolution(16, 64, 3, 2), 64, 24),  # 12, 4
            _Bottleneck(_convolution(24, 96, 3), 96, 24, border=1),  # 20, 4
            _Bottleneck(_convolution(24, 96, 4, 2), 96, 32),  # 32, 8
        ]
        if window == 64:
            layers.append(_Bottleneck(_depthwise(32, 128), 128, 48))  # 48, 8
            layers.append(_Bottleneck(_depthwise(48, 192), 192, 64))  # 64, 8
        super().__init__(*layers, _convolution(64 if window == 64 else 32, self.width, 1))
        self.window = window


class _Bottleneck(nn.Module):
    """Wide layers of `channels` channels, narrowed to `outputs`; with a border, added to the input less that border."""

    def __init__(self, wide: nn.Sequential, channels: int, outputs: int, border: int = 0) -> None:
        super().__init__()
        self.body = nn.Sequential(*wide, nn.Conv2d(channels, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.border = border

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)  # (B, outputs, h, w)
        if not self.border:
            return y
        inner = slice(self.border, -self.border)
        return y + x[:, :, inner, inner]


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.SiLU(inplace=True))


def _depthwise(inputs: int, wide: int) -> nn.Sequential:
    """To `wide` channels, then 3 x 3 in each of them."""
    return nn.Sequential(*_convolution(inputs, wide, 1), *_convolution(wide, wide, 3, groups=wide))
