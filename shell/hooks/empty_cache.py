"""Gives cached GPU memory back at the moments the plan lists; without a GPU in use there is none."""

from typing import Any

import torch


class EmptyCacheHook:
    def _empty(self, _run: Any, **_: Any) -> None:
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.empty_cache()

    before_train_epoch = after_train_epoch = after_train_iter = _empty
    before_val_epoch = after_val_epoch = after_val_iter = _empty
    before_test_epoch = after_test_epoch = after_test_iter = _empty
