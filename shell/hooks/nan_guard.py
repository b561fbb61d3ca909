"""Looks at loss and gradient before an update and leaves it out if they are not finite; stopping is asked for here."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from flexcore.hooks import NaNGuard
from flexcore.questions import window_samples
from shell.run import Run
from shell.strategies.base import local

REASON = "nonfinite"


class NaNGuardHook:
    """The optimizer wrapper tells every loss and asks before every update. State: updates seen and left out.

    One host wait at each update it looks at, and with the loss one collective; none at others.
    """

    def __init__(self, spec: NaNGuard) -> None:
        self.spec = spec
        self.updates = self.skipped = 0
        self.found = False

    def before_train(self, run: Run) -> None:
        self.run = run
        for name, wrapper in run.optim_wrapper.each:
            wrapper.guard = Watch(self, name, wrapper.parameters)
        if self.spec.action == "stop":
            run.spoiled = self.spoiled

    def looks(self) -> bool:
        return (self.updates + 1) % self.spec.interval == 0

    def passes(self, loss: torch.Tensor | None, watch: "Watch") -> bool:
        """Whether an update may happen; the same on every rank."""
        looks = self.looks()
        self.updates += 1
        if not looks:
            return True
        own = self._not_finite(loss, watch)
        alike = self.run.world_size == 1 or (self.spec.check == "gradient" and not self.run.strategy.shards)
        worst = own if alike else self.run.group.max(own)
        if not any(worst):
            return True
        what = [name for name, bad in zip(("loss", "gradient"), worst, strict=True) if bad]
        self._tell(what, bool(own[0]), watch.name)
        if self.spec.action == "stop":
            self._stop()
        else:
            self.skipped += 1
        return False

    def _not_finite(self, loss: torch.Tensor | None, watch: "Watch") -> list[float]:
        """[loss, gradient] as 0 or 1, with one wait for the device."""
        flags = [torch.zeros((), device=self.run.device), torch.zeros((), device=self.run.device)]
        if loss is not None:
            flags[0] = (~torch.isfinite(loss)).float().reshape(())
        if self.spec.check != "loss":
            flags[1] = not_finite([p.grad for p in watch.parameters if p.grad is not None])
        found: list[float] = torch.stack([flag.to(self.run.device) for flag in flags]).tolist()
        return found

    def _tell(self, what: list[str], mine: bool, optimizer: str | None) -> None:
        """On record and in the log, with the samples of each rank whose loss it is; every rank calls this."""
        run = self.run
        own = window_samples(run.plan, run.iter, run.rank)
        told = run.group.gather([mine, own])
        samples = {
            str(rank): indices
            for rank, (bad, indices) in enumerate(told)
            if indices and run.plan.leads(rank) and (bad or "loss" not in what)
        }
        run.recorder.event(
            "nonfinite",
            iter=run.iter + 1,
            what=what,
            action=self.spec.action,
            samples=samples,
            **({} if optimizer is None else {"optimizer": optimizer}),
        )
        level = run.logger.error if self.spec.action == "stop" else run.logger.warning
        level(
            "%s%s not finite in iteration %d; update left out; samples by rank: %s",
            "" if optimizer is None else f"{optimizer}: ",
            " and ".join(what),
            run.iter,
            samples or "not planned",
        )

    def _stop(self) -> None:
        self.found = True
        self.run.request_stop(f"{REASON}: iteration {self.run.iter}", alike=True)

    def spoiled(self) -> bool:
        """Whether what would be saved now is not finite: updates between two looks may have let it in."""
        if not self.found and self.spec.interval > 1:
            bad = float(not_finite([p.detach() for p in self.run.model.parameters()]))
            bad = self.run.group.max([bad])[0] if self.run.strategy.shards else bad
            if bad:
                self.run.logger.error(
                    "the weights are not finite after iteration %d; nothing is saved", self.run.iter
                )
                self._stop()
        return self.found

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "skipped": self.skipped}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.updates, self.skipped = int(state["updates"]), int(state["skipped"])


class Watch:
    """What one optimizer wrapper tells: the losses of the update under way."""

    def __init__(
        self, hook: NaNGuardHook, name: str | None, parameters: Sequence[torch.nn.Parameter]
    ) -> None:
        self.hook, self.name, self.parameters = hook, name, parameters
        self._loss: torch.Tensor | None = None

    def loss(self, loss: torch.Tensor) -> None:
        """One micro-batch's; a window's are added up, which keeps NaN and infinity."""
        if self.hook.spec.check != "gradient" and self.hook.looks():
            self._loss = loss.detach() if self._loss is None else self._loss + loss.detach()

    def passes(self) -> bool:
        loss, self._loss = self._loss, None
        return self.hook.passes(loss, self)


@torch.no_grad()
def not_finite(tensors: list[torch.Tensor]) -> torch.Tensor:
    """1.0 if any element this rank holds is NaN or infinite, on the device; the largest magnitude cannot overflow."""
    parts = [t.coalesce().values() if t.is_sparse else local(t) for t in tensors]
    tensors = [part for part in parts if part.numel()]
    if not tensors:
        return torch.zeros(())
    largest = torch.stack([norm.float() for norm in torch._foreach_norm(tensors, float("inf"))])
    return (~torch.isfinite(largest).all()).float()
