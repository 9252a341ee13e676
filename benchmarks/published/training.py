"""Training the published way, written plainly: what ours is measured against."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.transforms import v2
from torchvision.transforms.functional import to_tensor

from benchmarks.training.loops import MANY_STEPS, RATE, wait_for
from cxr.manifests.films import Films
from training.engine import one_cycle


class PublishedSet(Dataset[tuple[Tensor, Tensor]]):
    """A film from its JPEG, augmented in floating point, as the published loader's workers do."""

    def __init__(self, films: Films, image_size: int) -> None:
        self.films = films
        self.augment = v2.Compose(
            [
                v2.RandomResizedCrop((image_size, image_size), scale=(0.5, 1), antialias=True),
                v2.RandomRotation(5),
                v2.ColorJitter(brightness=0.3),
            ]
        )

    def __len__(self) -> int:
        return len(self.films)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        with Image.open(self.films.files[index]) as image:
            film = to_tensor(image.convert("L"))
        return self.augment(film), torch.from_numpy(self.films.labels[index])


class PublishedLoop:
    """Float16 with a loss scaler on a GPU, float32 elsewhere; the loss is read at every step."""

    def __init__(self, model: nn.Module, device: str) -> None:
        self.model, self.device = model.train(), device
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
        self.scheduler = one_cycle(self.optimizer, RATE, MANY_STEPS)
        self.criterion = nn.BCEWithLogitsLoss()
        self.scaler = torch.amp.GradScaler(device, enabled=device == "cuda")
        self.losses: list[float] = []

    def step(self, batch: tuple[Tensor, Tensor]) -> None:
        images, labels = (tensor.to(self.device, non_blocking=True) for tensor in batch)
        self.optimizer.zero_grad()
        with torch.autocast(self.device, torch.float16, enabled=self.device == "cuda"):
            loss = self.criterion(self.model(images), labels)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        self.losses.append(loss.item())

    def finish(self) -> None:
        wait_for(self.device)
