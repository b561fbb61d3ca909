"""Preprocessors, models that take them, samplers and streams for tests of what a model is fed."""

import torch
from torch import nn
from torch.utils.data import IterableDataset, get_worker_info

from tests.shell.toys import CLASSES, FEATURES, Points


class Scale(nn.Module):
    """Scales inputs by a buffer; counts its calls by (training)."""

    def __init__(self, by=2.0):
        super().__init__()
        self.register_buffer("by", torch.tensor(by))
        self.calls = {True: 0, False: 0}

    def forward(self, data):
        self.calls[self.training] += 1
        inputs, target = data
        return inputs * self.by, target


class Told(Scale):
    """The same in mmengine's shape: forward(data, training)."""

    def forward(self, data, training=False):
        self.calls[training] += 1
        inputs, target = data
        return torch.stack(list(inputs)) * self.by, torch.stack(list(target))


class Learned(Scale):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))


def scaled(data, by=2.0):
    return data[0] * by, data[1]


def scaling(by=2.0):
    """A function that gives a function."""
    return lambda data: scaled(data, by)


class Stepping(nn.Linear):
    """Steps itself and calls its own preprocessor, as mmengine's BaseModel does."""

    def __init__(self, data_preprocessor=None):
        super().__init__(FEATURES, CLASSES)
        self.data_preprocessor = data_preprocessor

    def train_step(self, data, optim_wrapper):
        inputs, target = self.data_preprocessor(data, True)
        with optim_wrapper.optim_context(self):
            loss = nn.functional.cross_entropy(self(inputs), target)
        optim_wrapper.update_params(loss)
        return {"loss": loss}

    def val_step(self, data):
        return self(self.data_preprocessor(data, False)[0]).argmax(1)


class Late(Stepping):
    """Takes no preprocessor, and has the attribute free."""

    def __init__(self):
        super().__init__()


class Bare(nn.Linear):
    """Steps itself on tensors, and knows nothing of preprocessors."""

    def __init__(self):
        super().__init__(FEATURES, CLASSES)

    def train_step(self, data, optim_wrapper):
        loss = nn.functional.cross_entropy(self(data[0]), data[1])
        optim_wrapper.update_params(loss)
        return {"loss": loss}

    def val_step(self, data):
        return self(data[0]).argmax(1)


class Moded(nn.Linear):
    """One forward(mode=...): the run stands in for train_step, preprocessor included."""

    def __init__(self, data_preprocessor=None):
        super().__init__(FEATURES, CLASSES)
        self.data_preprocessor = data_preprocessor

    def forward(self, inputs, target, mode="tensor"):
        out = super().forward(inputs)
        return {"loss": nn.functional.cross_entropy(out, target)} if mode == "loss" else out.argmax(1)


class Seen:
    """Writes each rank's training labels, inputs' first numbers and what called the preprocessor."""

    def before_train(self, run):
        self.rows = []

    def after_train_iter(self, run, data_batch=None, **_):
        inputs = data_batch[0]
        self.rows += [round(float(row[0]), 5) for row in inputs]

    def after_run(self, run):
        (run.work_dir / f"seen.{run.rank}").write_text(repr(self.rows))


class Calls:
    """Writes how often the preprocessor was called, training and not, and where it stands."""

    def after_run(self, run):
        held = getattr(run.model, "data_preprocessor", None)
        (run.work_dir / "calls").write_text(repr(held.calls if held is not None else None))


class InPairs:
    """A batch sampler: two batches of a size, then one of half; the sampler and size come from the loader."""

    def __init__(self, sampler, batch_size):
        self.sampler, self.batch_size = sampler, batch_size

    def __len__(self):
        return sum(1 for _ in self._sizes())

    def _sizes(self):
        left, i = len(self.sampler), 0
        while left > 0:
            yield min(left, self.batch_size if i % 3 < 2 else self.batch_size // 2)
            left -= self.batch_size if i % 3 < 2 else self.batch_size // 2
            i += 1

    def __iter__(self):
        indices = iter(self.sampler)
        for size in self._sizes():
            yield [next(indices) for _ in range(size)]


class Stream(IterableDataset):
    """n numbered points, noised; shards itself over workers and, if told its rank, over ranks. n None: endless."""

    def __init__(self, n=None, noise=0.0, shard=False, counted=False):
        self.n, self.noise, self.shard = n, noise, shard
        self.points = Points(64)
        if counted:
            self.__class__ = Counted

    def __iter__(self):
        import os

        info = get_worker_info()
        rank, world = (int(os.environ.get(k, d)) for k, d in (("RANK", 0), ("WORLD_SIZE", 1)))
        first, step = (rank, world) if self.shard else (0, 1)
        first, step = (first, step) if info is None else (first + step * info.id, step * info.num_workers)
        at = first
        while self.n is None or at < self.n:
            inputs, label = self.points[at % 64]
            inputs = inputs.clone()
            inputs[0] = at
            yield inputs + self.noise * torch.randn(FEATURES), label
            at += step


class Counted(Stream):
    def __len__(self):
        return self.n


class Lengthless:
    def __getitem__(self, index):
        return index


class Size:
    """mmengine's metric shape: counts predictions."""

    def __init__(self):
        self.counted = 0

    def process(self, data_batch, data_samples):
        self.counted += len(data_samples)

    def evaluate(self, size):
        counted, self.counted = self.counted, 0

        return {"size": counted}


class Wordy(nn.Linear):
    """Predicts a mapping a sample, with text in it."""

    def __init__(self):
        super().__init__(FEATURES, CLASSES)

    def forward(self, inputs, target, mode="tensor"):
        labels = super().forward(torch.stack(list(inputs))).argmax(1)
        return [{"label": label, "word": f"class {int(label)}"} for label in labels]
