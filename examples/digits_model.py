"""A small CNN and scikit-learn's digits: 1,797 real 8x8 images, split 1,437 / 360 by a fixed permutation."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import Dataset


class Digits(Dataset):
    def __init__(self, split: str) -> None:
        data = load_digits()
        order = np.random.default_rng(0).permutation(len(data.target))
        chosen = order[:1437] if split == "train" else order[1437:]
        self.images = torch.tensor(data.images[chosen], dtype=torch.float32).unsqueeze(1) / 16
        self.labels = torch.tensor(data.target[chosen])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.images[index], self.labels[index]


class Net(nn.Sequential):
    """Two convolutions and two linear layers; images (N, 1, 8, 8) to logits (N, 10)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__(
            nn.Conv2d(1, width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(2 * width * 16, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 10),
        )  # fmt: skip
