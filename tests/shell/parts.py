"""Tiny things for configs and tests to name: models of every contract, datasets, metrics, hooks."""

import torch
from torch import nn
from torch.utils.data import Dataset


class Net(nn.Linear):
    """Contract 3: one input, output compared by a loss component."""

    def __init__(self, width=3):
        super().__init__(width, 2)


class Pairs(Dataset):
    """n pairs (inputs, target), fixed by the index."""

    def __init__(self, n=10, width=3):
        self.inputs = torch.arange(n * width, dtype=torch.float32).reshape(n, width) / (n * width)
        self.targets = torch.arange(n) % 2

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return self.inputs[index], self.targets[index]


class Accuracy:
    """A metric with torchmetrics' three verbs, and no torchmetrics to import."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.right = self.seen = 0

    def update(self, output, target):
        self.right += int((output.argmax(-1) == target).sum())
        self.seen += len(target)

    def compute(self):
        return self.right / self.seen


class Stepping(nn.Linear):
    """Contract 1: steps itself, as FlexibleRunner's models do."""

    def __init__(self):
        super().__init__(3, 2)

    def train_step(self, data, optim_wrapper):
        inputs, target = torch.stack(data[0]), torch.stack(data[1])
        with optim_wrapper.optim_context(self):
            loss = nn.functional.cross_entropy(self(inputs), target)
        optim_wrapper.update_params(loss)
        return {"loss": loss, "note": 3.0}

    def val_step(self, data):
        return self(torch.stack(data[0])).argmax(-1)


class Moded(nn.Linear):
    """Contract 2: one forward, told what to do by `mode`."""

    def __init__(self):
        super().__init__(3, 2)

    def forward(self, inputs, target, mode="tensor"):
        out = super().forward(torch.stack(inputs))
        if mode == "loss":
            parts = nn.functional.cross_entropy(out, torch.stack(target), reduction="none")
            return {"loss_a": parts, "loss_b": [parts * 2, parts], "accuracy": (out.argmax(-1) == 0).float()}
        return out.argmax(-1) if mode == "predict" else out


class Mapped(nn.Linear):
    """Contract 4: the forward takes a mapping's keys and returns one with the loss."""

    def __init__(self):
        super().__init__(3, 2)

    def forward(self, inputs, labels=None):
        out = super().forward(inputs)
        loss = None if labels is None else nn.functional.cross_entropy(out, labels)
        return {"loss": loss, "logits": out}


class Fragile:
    """Cannot be built."""

    def __init__(self, message="no"):
        raise RuntimeError(message)


class Holder:
    """Keeps what it was given, to be looked at."""

    def __init__(self, *args, **kwargs):
        self.args, self.kwargs = args, kwargs


class Quiet:
    """A hook that listens to one stage."""

    priority = "LOW"

    def after_train(self, run):
        pass


NOT_CALLABLE = 3
