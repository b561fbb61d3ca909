"""A small GPT over characters, and the text it reads: the topics of Python's help(), some 470,000 characters."""

from pydoc_data.topics import topics

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset
from torchmetrics import Metric

TEXT = "\n\n".join(topics[name] for name in sorted(topics))
ALPHABET = sorted(set(TEXT))


class Windows(Dataset):
    """Stretches of `context` characters side by side, each with the characters that follow them.

    The last tenth of the text is for validation.
    """

    def __init__(self, split: str, context: int) -> None:
        number = {character: i for i, character in enumerate(ALPHABET)}
        codes = torch.tensor([number[character] for character in TEXT])
        cut = len(codes) * 9 // 10
        self.codes = codes[:cut] if split == "train" else codes[cut:]
        self.context = context

    def __len__(self) -> int:
        return (len(self.codes) - 1) // self.context

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        start = index * self.context
        window = self.codes[start : start + self.context + 1]
        return window[:-1], window[1:]


class Attention(nn.Module):
    """Causal self-attention; (N, T, width) to the same."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        dropout = self.dropout if self.training else 0.0
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout)
        return self.out(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and a feed-forward part, each normed before and added to what came in."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.before_attention, self.attention = nn.LayerNorm(width), Attention(width, heads, dropout)
        self.before_feed, self.feed = nn.LayerNorm(width), nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )  # fmt: skip
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.dropout(self.attention(self.before_attention(x)))
        return x + self.dropout(self.feed(self.before_feed(x)))


class GPT(nn.Module):
    """Characters (N, T) to logits of the next ones (N, alphabet, T), as cross-entropy takes them."""

    _no_split_modules = ("Block",)  # what FSDP gathers as one

    def __init__(self, width: int, depth: int, heads: int, context: int, dropout: float) -> None:
        super().__init__()
        self.characters, self.places = nn.Embedding(len(ALPHABET), width), nn.Embedding(context, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList([Block(width, heads, dropout) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, len(ALPHABET), bias=False)
        self.head.weight = self.characters.weight
        self.apply(self._start)

    @staticmethod
    def _start(module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        x = self.characters(codes) + self.places.weight[: codes.shape[1]]
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)).transpose(1, 2)


class MeanLoss(Metric):
    """Nats a character, over all of them on every rank."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, logits: torch.Tensor, target: torch.Tensor) -> None:
        self.total += functional.cross_entropy(logits, target, reduction="sum")
        self.count += target.numel()

    def compute(self) -> torch.Tensor:
        return self.total / self.count
