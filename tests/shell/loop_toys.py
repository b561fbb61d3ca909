"""Loops of a user's own: one as simple as can be, one in mmengine's manner, a teacher and a student, and odd ones."""

import copy
import json

import torch
from torch import nn


class Forgetful:
    """Epochs, each followed by a validation. Says nothing of its state."""

    def __init__(self, run, dataloader, max_epochs):
        self.runner, self.dataloader, self.max_epochs = run, dataloader, max_epochs

    def run(self):
        while self.runner.epoch < self.max_epochs:
            self.runner.begin_epoch()
            for batch in self.dataloader:
                self.runner.iteration(batch)
            self.runner.end_epoch()
            if not self.runner.validated:
                self.runner.validate()


class Simple(Forgetful):
    """The same, and says that it has no state of its own."""

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        assert state == {}


class Picky(Simple):
    """Trains on batches of low loss alone, `passes` times over, until `max_iters` were worth it."""

    def __init__(self, run, dataloader, max_iters, above=1.0):
        super().__init__(run, dataloader, None)
        self.wanted, self.above, self.skipped = max_iters, above, 0

    def run(self):
        while self.runner.completed < self.wanted:
            for batch in self.dataloader:
                if self._dull(batch):
                    self.skipped += 1
                    continue
                self.runner.iteration(batch)
                if self.runner.completed % 5 == 0 and not self.runner.validated:
                    self.runner.validate()
                if self.runner.completed == self.wanted:
                    break

    @torch.no_grad()
    def _dull(self, batch):
        return bool(batch[0].sum() < self.above)

    def state_dict(self):
        return {"skipped": self.skipped}

    def load_state_dict(self, state):
        self.skipped = state["skipped"]


class Teaching(Simple):
    """A student learns labels and the mean teacher's answers; the teacher follows the student. Two losses, one step."""

    def __init__(self, run, dataloader, max_epochs, momentum=0.1, consistency=0.5):
        super().__init__(run, dataloader, max_epochs)
        self.momentum, self.consistency = momentum, consistency
        self.teacher = copy.deepcopy(run.model).eval().requires_grad_(requires_grad=False)

    def run(self):
        while self.runner.epoch < self.max_epochs:
            self.runner.begin_epoch()
            for batch in self.dataloader:
                self.runner.iteration(batch, self.step)
            self.runner.end_epoch()
        if self.runner.rank == 0:
            total = sum(float(p.double().sum()) for p in self.teacher.parameters())
            (self.runner.work_dir / "teacher").write_text(json.dumps(total))

    def step(self, batch):
        inputs, labels = batch
        wrapper = self.runner.optim_wrapper
        with wrapper.optim_context(self.runner.model):
            answers = self.runner.called(inputs)
            own = nn.functional.cross_entropy(answers, labels)
            theirs = nn.functional.mse_loss(answers, self.teacher(inputs))
            loss = own + self.consistency * theirs
        wrapper.update_params(loss)
        for mine, new in zip(self.teacher.parameters(), self.runner.model.parameters(), strict=True):
            mine.data.lerp_(new.data, self.momentum)
        return {"loss": loss, "consistency": theirs}

    def state_dict(self):
        return {"teacher": self.teacher.state_dict()}

    def load_state_dict(self, state):
        self.teacher.load_state_dict(state["teacher"])


class Endless(Simple):
    """Goes on until it is stopped; swallows every exception."""

    def run(self):
        while True:
            try:
                self.runner.iteration(next(iter(self.dataloader)))
            except Exception:
                pass


class Runless:
    def __init__(self, run, dataloader):
        pass


class Validating:
    """Evaluates by thresholds of its own, and tells how often each rank looked."""

    def __init__(self, run, dataloader, evaluator, shift=0.0):
        self.runner, self.dataloader, self.evaluator, self.shift = run, dataloader, evaluator, shift

    def run(self):
        for batch in self.dataloader:
            outputs = self.runner.model(batch[0]) + self.shift
            self.evaluator.process(data_samples=outputs, data_batch=batch)
        return {**self.evaluator.evaluate(), "batches": float(len(self.dataloader))}


class Mumbling(Validating):
    def run(self):
        return 3
