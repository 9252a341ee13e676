"""A network small enough to reason about, with every kind of layer that folding touches."""

import torch
from torch import nn
from torchvision.ops import SqueezeExcitation


class ToyNetwork(nn.Module):
    """Interface of MedicalPatchNet, 3 labels. Weights are random but fixed; its normalisation is not the identity."""

    def __init__(self, patch_size: int, image_size: int, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.patch_size = patch_size
        self.image_size = image_size
        self.labels = ("Edema", "Pneumonia", "Lung Opacity")
        self.features = nn.Sequential(
            nn.Sequential(
                nn.Conv2d(1, 6, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(6), nn.SiLU(inplace=True)
            ),
            SqueezeExcitation(6, 2, activation=nn.SiLU),
            nn.Sequential(
                nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.SiLU(inplace=True)
            ),
        )
        self.head = nn.Linear(8, len(self.labels))
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.running_mean.normal_(0, 0.3)
                    module.running_var.uniform_(0.1, 2)
                    module.weight.normal_(1, 0.5)
                    module.bias.normal_(0, 0.3)
            self.head.weight.mul_(20)
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.feature_map(images).mean(dim=(2, 3)))

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        p = self.patch_size
        rows = [
            torch.cat([self.features(images[..., y : y + p, x : x + p]) for x in range(0, self.image_size, p)], dim=3)
            for y in range(0, self.image_size, p)
        ]
        return torch.cat(rows, dim=2)
