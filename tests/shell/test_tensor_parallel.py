"""Tensor parallelism, alone and in shares: losses, weights, samples, checkpoints and hooks are those of one process."""

# ruff: noqa: C408 - configs are written as FlexibleRunner's are

import json

import pytest
import torch
from torch import nn
from torch.nn import functional

from flexcore.problems import ConfigError
from tests.ranks import run_ranks
from tests.shell import toys

HERE = "tests.shell.test_tensor_parallel"
CLIP = dict(max_norm=0.5)
TOKENS = 3


class Attention(nn.Module):
    """Queries, keys and values in one layer, taken apart by the number of heads it was built with."""

    def __init__(self, width: int, num_heads: int, norms: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm = nn.LayerNorm(width // num_heads) if norms else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1)
        )
        q, k = self.norm(q), self.norm(k)
        return self.proj(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width: int, num_heads: int, norms: bool) -> None:
        super().__init__()
        self.norm, self.attn = nn.LayerNorm(width), Attention(width, num_heads, norms)
        self.up, self.down = nn.Linear(width, 2 * width, bias=False), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm(x))
        return x + self.down(torch.relu(self.up(x)))


class Former(nn.Module):
    """Points as three tokens, quantised for an embedding that is the head's weight as well, through blocks to logits."""

    _no_split_modules = ("Block",)

    def __init__(
        self, width: int = 12, num_heads: int = 2, words: int = 10, dropout: float = 0.0, norms: bool = False
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.places = nn.Parameter(torch.randn(TOKENS, width) / 10)
        self.first = nn.Linear(toys.FEATURES // TOKENS, width)
        self.blocks = nn.ModuleList([Block(width, num_heads, norms), Block(width, num_heads, norms)])
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.words.weight
        self.last = nn.Linear(words, toys.CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.unflatten(-1, (TOKENS, -1))
        ids = (x.mean(-1) * 2 + self.words.num_embeddings / 2).long().clamp(0, self.words.num_embeddings - 1)
        x = self.first(x) + self.words(ids) + self.places
        for block in self.blocks:
            x = self.dropout(block(x))
        return self.last(self.head(x).mean(1))


PLAN = {
    "blocks.*.attn": "fewer_heads",
    "blocks.*.attn.qkv": dict(style="colwise", parts=3),
    "blocks.*.attn.proj": "rowwise",
    "blocks.*.up": "colwise",
    "blocks.*.down": "rowwise",
    "words": "rowwise",
    "head": "colwise_rep",
    "last": "rowwise_rep",
}
ALONE = dict(type="TensorParallelStrategy", size=2, plan=PLAN)
SHARED = dict(type="FSDPStrategy", tensor_parallel=dict(size=2, plan=PLAN))
LAYOUTS = {
    "single": (1, None),
    "ddp": (2, dict(type="DDPStrategy")),
    "fsdp": (2, dict(type="FSDPStrategy")),
    "alone": (2, ALONE),
    "groups": (4, ALONE),
    "shared": (4, SHARED),
    "copies": (4, dict(SHARED, shard_size=1)),
}


def config(work_dir, **changes):
    return toys.config(work_dir, **{"model": dict(type=f"{HERE}:Former"), **changes})


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process loses in micro-batches of that size."""
    done = {}

    def lost(size):
        if size not in done:
            done[size] = trained(tmp_path_factory.mktemp("alone"), "single", size)
        return done[size]

    return lost


def trained(work_dir, layout, size):
    """The losses of one global batch of 8 a step, with active clipping; the plan's samples and LR are what happened."""
    ranks, strategy = LAYOUTS[layout]
    wrapper = dict(optimizer=dict(type="SGD", lr=0.2, momentum=0.9), clip_grad=CLIP)
    data = dict(dataset=dict(type="tests.shell.toys:Points", n=34), batch_size=size)
    cfg = config(work_dir, global_batch_size=8, optim_wrapper=wrapper, custom_hooks=[toys.LOSSES], strategy=strategy,
                 train_dataloader=data)  # fmt: skip
    toys.run(ranks, cfg)
    assert toys.differences(work_dir) == []
    return toys.losses(work_dir, ranks)


@pytest.mark.parametrize(
    ("layout", "size"),
    toys.sampled(
        [("alone", 8), ("alone", 4), ("groups", 2), ("shared", 4), ("shared", 2), ("copies", 4)],
        without=[2, 4, 5],
    ),
)
def test_ranks_that_compute_together_lose_as_one_process(layout, size, alone, tmp_path):
    found, expected = trained(tmp_path, layout, size), alone(4)
    assert len(expected) == 15
    assert found == pytest.approx(expected, abs=1e-5)
    assert expected[-1] < expected[0] * 0.9


class Norms:
    """Each update's gradient norm before clipping, as it was."""

    def after_train_iter(self, run, **_) -> None:
        with (run.work_dir / f"norms.{run.rank}").open("a") as file:
            file.write(f"{float(run.optim_wrapper.gradient_norm)!r}\n")


@pytest.mark.parametrize("norm_type", toys.sampled([2.0, "inf"], without=[1]))
def test_the_gradient_norm_is_the_whole_models(norm_type, tmp_path):
    """Layers cut over one mesh, shared out over another or held whole: one norm, the same on every rank."""
    clip = dict(max_norm=0.05, norm_type=float(norm_type), error_if_nonfinite=True)
    norms = {}
    for layout in ("single", "alone", "shared"):
        ranks, strategy = LAYOUTS[layout]
        wrapper = dict(optimizer=dict(type="SGD", lr=0.1), clip_grad=clip)
        cfg = config(tmp_path / layout, global_batch_size=8, optim_wrapper=wrapper, strategy=strategy,
                     custom_hooks=[dict(type=f"{HERE}:Norms")], val_dataloader=None, val_evaluator=None, val_cfg=None)  # fmt: skip
        toys.run(ranks, cfg)
        told = [(tmp_path / layout / f"norms.{rank}").read_text() for rank in range(ranks)]
        assert len(set(told)) == 1
        norms[layout] = [float(line) for line in told[0].split()]
    assert len(norms["single"]) == 15
    assert norms["alone"] == pytest.approx(norms["single"], abs=1e-6)
    assert norms["shared"] == pytest.approx(norms["single"], abs=1e-6)


def test_values_are_clipped_and_half_precision_computed_in_parts_as_whole(tmp_path):
    """clip_grad by value, under bfloat16 autocast: to its rounding."""
    found = {}
    wrapper = dict(type="AmpOptimWrapper", dtype="bfloat16", optimizer=dict(type="AdamW", lr=0.01),
                   clip_grad=dict(type="value", clip_value=0.01))  # fmt: skip
    for layout in ("single", "alone"):
        ranks, strategy = LAYOUTS[layout]
        cfg = config(tmp_path / layout, optim_wrapper=wrapper, strategy=strategy, custom_hooks=[toys.LOSSES])
        toys.run(ranks, cfg)
        found[layout] = toys.losses(tmp_path / layout, ranks)
    assert found["alone"] == pytest.approx(found["single"], abs=2e-2)


DROPPING = dict(type=f"{HERE}:Former", dropout=0.2)
AVERAGED = dict(type="EMAHook", momentum=0.3)


@pytest.mark.parametrize(
    ("layout", "nth"), toys.sampled([("alone", 3), ("alone", 14), ("shared", 14)], without=[0, 1])
)
def test_a_killed_run_resumes_to_the_bit(layout, nth, tmp_path):
    """Optimizer state, averages and random streams come back, each rank's part of them."""
    ranks, strategy = LAYOUTS[layout]
    toys.run(ranks, config(tmp_path / "whole", model=DROPPING, strategy=strategy, custom_hooks=[AVERAGED]))
    kill = dict(type="tests.shell.toys:KillIn", stage="before_train_iter", nth=nth)
    cfg = config(tmp_path / "killed", model=DROPPING, strategy=strategy, custom_hooks=[AVERAGED, kill])
    with pytest.raises(Exception, match=r"ended with|failed|closed"):
        toys.run(ranks, cfg)
    toys.run(ranks, cfg)
    assert toys.weights(tmp_path / "killed") == toys.weights(tmp_path / "whole")
    assert toys.differences(tmp_path / "killed") == []


WAYS = [
    ("alone", "single", "alone"),
    ("single", "alone", "fsdp"),
    ("shared", "alone", "ddp"),
    ("ddp", "groups", "shared"),
]


@pytest.mark.parametrize("way", toys.sampled(WAYS, without=[0, 1, 3]), ids=" to ".join)
def test_a_checkpoint_goes_on_under_any_other_strategy(way, tmp_path):
    """Weights, averages and optimizer state are whole in it, their rows as the model was written, whoever holds them."""
    means = {}
    for name, layouts in {"moved": way, "one": ("single",) * 3}.items():
        means[name] = []
        for layout, stop in zip(layouts, (5, 10, None), strict=True):
            ranks, strategy = LAYOUTS[layout]
            stops = [] if stop is None else [dict(type="tests.shell.toys:Wishes", stop=stop)]
            cfg = config(tmp_path / name, global_batch_size=8, strategy=strategy, custom_hooks=[toys.LOSSES, AVERAGED, *stops],
                         train_dataloader=dict(dataset=dict(type="tests.shell.toys:Points", n=34), batch_size=2))  # fmt: skip
            toys.run(ranks, cfg)
            means[name] += toys.losses(tmp_path / name, ranks)
            for file in (tmp_path / name).glob("losses.*"):
                file.unlink()
    assert len(means["one"]) == 15
    assert means["moved"] == pytest.approx(means["one"], abs=1e-5)
    assert toys.differences(tmp_path / "moved") == []
    scores = [
        [event["metrics"]["hits"] for event in toys.recorded(tmp_path / name, "validate")] for name in means
    ]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("layout", ["alone", "groups"])
def test_every_sample_of_an_evaluation_counts_once(layout, tmp_path):
    """In metrics, in the record and in the file of predictions."""
    found = {}
    for name in ("single", layout):
        ranks, strategy = LAYOUTS[name]
        cfg = config(tmp_path / name, strategy=strategy, train_cfg=dict(by_epoch=True, max_epochs=1),
                     val_cfg=dict(predictions="seen.jsonl"), val_evaluator=dict(sum=dict(type=f"{HERE}:Count")))  # fmt: skip
        if layout == "groups":
            cfg |= dict(
                train_dataloader=dict(dataset=dict(type="tests.shell.toys:Points", n=1), batch_size=4)
            )
        assert toys.run(ranks, cfg)["metrics"] == {"sum": 11.0}
        (event,) = toys.recorded(tmp_path / name, "validate")
        assert event["samples"] == [11]
        (file,) = (tmp_path / name).glob("*/seen*.jsonl")
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        assert [row["index"] for row in rows] == list(range(11))
        found[name] = [value for row in rows for value in row["prediction"]]
    if layout == "alone":
        assert found["alone"] == pytest.approx(found["single"], abs=1e-5)


class Count(toys.Hits):
    """How many samples were told of, over all ranks."""

    def compute(self) -> float:
        super().compute()
        return float(self.counts[1])


class Streams:
    """What each rank draws as training begins."""

    def before_train(self, run) -> None:
        (run.work_dir / f"drawn.{run.rank}").write_text(f"{torch.initial_seed()} {run.data_rank} {run.leads}")


def test_ranks_of_a_group_draw_alike_and_groups_apart(tmp_path):
    cfg = config(tmp_path, strategy=LAYOUTS["groups"][1], custom_hooks=[dict(type=f"{HERE}:Streams")],
                 randomness=dict(seed=7, diff_rank_seed=True), train_cfg=dict(by_epoch=False, max_iters=2),
                 val_dataloader=None, val_evaluator=None, val_cfg=None)  # fmt: skip
    toys.run(4, cfg)
    told = [(tmp_path / f"drawn.{rank}").read_text().split() for rank in range(4)]
    assert [row[1:] for row in told] == [["0", "True"], ["0", "False"], ["1", "True"], ["1", "False"]]
    seeds = [row[0] for row in told]
    assert seeds[0] == seeds[1] != seeds[2] == seeds[3]


class Poisoned(toys.Points):
    """One input is not a number."""

    def __init__(self, n: int, at: int) -> None:
        super().__init__(n)
        self.inputs[at, 0] = float("nan")


def test_a_bad_batch_is_left_out_on_all_and_told_once_a_group(tmp_path):
    data = dict(type=f"{HERE}:Poisoned", n=34, at=9)
    cfg = config(
        tmp_path, strategy=ALONE, train_dataloader=dict(dataset=data, batch_size=4),
        custom_hooks=[dict(type="NaNGuardHook", action="skip"), dict(type="ThroughputHook")],
    )  # fmt: skip
    assert toys.run(2, cfg)["reason"] == "done"
    events = toys.recorded(tmp_path, "nonfinite")
    assert len(events) == 3  # once an epoch
    assert [list(event["samples"]) for event in events] == [["0"]] * 3
    assert all(9 in event["samples"]["0"] for event in events)


def averaged(rank, whose):
    """Gradients averaged over two ranks; whose[i]: the ranks that have used parameter i."""
    import torch.distributed as dist

    from shell.strategies.tensor_parallel import average

    dist.init_process_group("gloo")
    parameters = [nn.Parameter(torch.zeros(2)) for _ in whose]
    for parameter, ranks in zip(parameters, whose, strict=True):
        if rank in ranks:
            parameter.grad = torch.full((2,), rank + 1.0)
    average(parameters, dist.group.WORLD)
    return [None if p.grad is None else p.grad.tolist() for p in parameters]


def test_a_parameter_some_groups_have_not_used_counts_as_zero_there():
    expected = [[1.5, 1.5], [0.5, 0.5], None, [1.0, 1.0]]
    assert run_ranks(2, averaged, [(0, 1), (0,), (), (1,)]) == [expected, expected]


NORMED = dict(type=f"{HERE}:Former", norms=True)


@pytest.mark.parametrize("layout", toys.sampled(["alone", "groups", "shared"], without=[1]))
def test_a_whole_layer_on_shares_learns_from_all_of_them(layout, tmp_path):
    """A norm of each head: every rank has some heads, and the gradient is of all."""
    found = {}
    for name in ("single", layout):
        ranks, strategy = LAYOUTS[name]
        if name != "single":
            summed = {**PLAN, "blocks.*.attn.norm": "summed"}
            strategy = (
                dict(strategy, plan=summed)
                if "plan" in strategy
                else dict(strategy, tensor_parallel=dict(size=2, plan=summed))
            )
        cfg = config(tmp_path / name, global_batch_size=8, strategy=strategy, custom_hooks=[toys.LOSSES], model=NORMED,
                     optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.2, momentum=0.9), clip_grad=CLIP))  # fmt: skip
        toys.run(ranks, cfg)
        found[name] = toys.losses(tmp_path / name, ranks)
    assert found[layout] == pytest.approx(found["single"], abs=1e-5)


def test_a_whole_layer_on_shares_that_is_not_summed_is_refused_at_its_first_update(tmp_path):
    with pytest.raises(ConfigError) as told:
        toys.run(2, config(tmp_path, strategy=ALONE, model=NORMED))
    text = "uses blocks.0.attn.norm.weight, blocks.0.attn.norm.bias, blocks.1.attn.norm.weight, blocks.1.attn.norm.bias on shares of features"
    remedy = 'Give the layer that holds it the style "summed" in the plan, which adds them up.'
    assert str(told.value) == f"model: {text}: its gradient is another on each rank. {remedy} [FP050]"


BESIDE = {
    "offloaded": dict(cpu_offload=True),
    "recomputed, kept gathered": dict(activation_checkpointing=["Block"], reshard_after_forward=False),
    "whole": dict(wrap=[]),
}


@pytest.mark.parametrize("name", toys.sampled(BESIDE, without=[1, 2]))
def test_settings_of_shares_go_with_cut_layers(name, alone, tmp_path):
    """One share of each part, on two ranks."""
    wrapper = dict(optimizer=dict(type="SGD", lr=0.2, momentum=0.9), clip_grad=CLIP)
    cfg = config(
        tmp_path,
        global_batch_size=8,
        optim_wrapper=wrapper,
        custom_hooks=[toys.LOSSES],
        strategy=dict(SHARED, **BESIDE[name]),
    )
    toys.run(2, cfg)
    assert toys.losses(tmp_path, 2) == pytest.approx(alone(4), abs=1e-5)


@pytest.mark.parametrize("layout", toys.sampled(["single", "alone"], without=[0]))
def test_weights_without_memory_are_filled_from_the_checkpoint(layout, tmp_path):
    """Rows in parts too, by parts over shares; and an evaluation alone sees the same weights."""
    ranks, strategy = LAYOUTS[layout]
    made = config(tmp_path / "from", strategy=strategy, train_cfg=dict(by_epoch=True, max_epochs=1))
    toys.run(ranks, made)
    source, found = str(tmp_path / "from" / "checkpoints" / "epoch_1"), []
    for name, chosen in (
        ("skips", dict(SHARED, skip_init_weights=True)),
        ("builds", SHARED),
        ("alone", ALONE),
    ):
        tested = config(tmp_path / name, strategy=chosen, load_from=source, resume=False, test_cfg=dict(),
                        test_dataloader=made["val_dataloader"], test_evaluator=dict(hits=made["val_evaluator"]["hits"],
                                                                                    count=dict(type=f"{HERE}:Count")))  # fmt: skip
        found.append(run_ranks(2, toys.trained_rank, tested, "test")[0]["metrics"])
    (event,) = toys.recorded(tmp_path / "from", "validate")
    assert found == [{"hits": event["metrics"]["hits"], "count": 11.0}] * 3


class OwnLoop:
    """Feeds the evaluator what the built-in loop would."""

    def __init__(self, run, dataloader, evaluator) -> None:
        self.run_, self.dataloader, self.evaluator = run, dataloader, evaluator

    def run(self):
        for batch in self.dataloader:
            self.evaluator.process(data_samples=self.run_.model(batch[0]), data_batch=batch)
        return self.evaluator.evaluate()


def test_a_loop_of_ones_own_counts_each_sample_once(tmp_path):
    cfg = config(tmp_path, strategy=ALONE, val_cfg=dict(type=f"{HERE}:OwnLoop"), train_cfg=dict(by_epoch=True, max_epochs=1),
                 val_evaluator=dict(count=dict(type=f"{HERE}:Count")))  # fmt: skip
    assert toys.run(2, cfg)["metrics"] == {"count": 11.0}
    assert [event["samples"] for event in toys.recorded(tmp_path, "validate")] == [[11]]
