"""Every rule a config can break, as data: code, name, default severity, why. The checks live in checks/."""

from collections.abc import Mapping

from attrs import frozen

from flexcore.problems import Path, Problem, Severity


@frozen
class Rule:
    name: str
    severity: Severity
    why: str


RULES: Mapping[str, Rule] = {
    # FK: files, keys and types
    "FK001": Rule("unreadable-file", "error", "A file that cannot be read cannot be planned."),
    "FK002": Rule("syntax-error", "error", "The file is not valid in its format."),
    "FK003": Rule("needs-execution", "error", "Configs are evaluated, never executed: what a plan says must not depend on code."),
    "FK004": Rule("duplicate-key", "error", "Of two values for one key, one is silently lost."),
    "FK005": Rule("bad-base", "error", "A base that is missing or circular leaves the config incomplete."),
    "FK006": Rule("bad-override", "error", "An override that cannot be applied would be silently lost."),
    "FK007": Rule("evaluation-failed", "error", "An expression failed or exceeded its limits."),
    "FK010": Rule("unknown-key", "error", "A misspelt key is a setting that silently does nothing."),
    "FK011": Rule("wrong-type", "error", "A value of another type would be coerced or crash hours later."),
    "FK012": Rule("missing-key", "error", "A section lacks what it cannot do without."),
    "FK013": Rule("unknown-type", "error", "A type that names nothing cannot be built."),
    "FK014": Rule("not-built-yet", "error", "The key is understood but its behaviour is not built; ignoring it would be a lie."),
    "FK015": Rule("not-plain-data", "error", "Only plain data can be planned, compared and saved."),
    "FK016": Rule("live-object", "error", "A live object in a config cannot be compared, saved or shipped."),
    "FK017": Rule("retired", "error", "The named thing is gone from the field; a replacement exists."),
    "FK018": Rule("partial-group", "error", "Loop, loader and evaluator (or optimizer) only work together."),
    "FK019": Rule("exclusive-keys", "error", "Two keys that fix the same thing can contradict each other."),
    "FK020": Rule("out-of-range", "error", "The value has no meaning outside its range."),
    "FK021": Rule("nothing-to-do", "error", "The asked mode needs a section that is not there."),
    "FK022": Rule("facts-of-another-config", "error", "What was observed does not fit what was asked."),
    "FK023": Rule("without-effect", "info", "The key serves machinery of FlexibleRunner's that is not needed here."),
    "FK024": Rule("impossible-fact", "error", "A plan that rests on what no machine can show says nothing."),
    "FK025": Rule("own-loop", "info", "What a loop of the user's own decides as it runs cannot be planned."),
    # FD: data and batching
    "FD001": Rule("no-batch-size", "error", "Without a batch size nothing can be counted."),
    "FD002": Rule("batch-contradiction", "error", "micro x accumulation x data_parallel_size must equal the global batch."),
    "FD003": Rule("zero-step-epoch", "error", "An epoch without a single iteration trains nothing."),
    "FD004": Rule("uneven-training-shards", "error", "Ranks with different batch counts hang in the first all-reduce."),
    "FD005": Rule("worker-setting-without-workers", "error", "The setting does nothing without worker processes; torch refuses it."),
    "FD006": Rule("shuffled-evaluation", "warning", "Shuffling an evaluation changes nothing but its order."),
    "FD007": Rule("samples-dropped", "info", "Some samples are left out of every epoch."),
    "FD008": Rule("samples-repeated", "info", "Some samples are used twice in an epoch to fill the last batch."),
    "FD009": Rule("opaque-order", "info", "The order of a user's own loader or sampler is not planned; a resume replays it."),
    "FD010": Rule("iterable-dataset", "info", "What each rank reads of a dataset that only iterates is the dataset's own business."),
    "FD011": Rule("preprocessor-of-the-model", "warning", "The model's own data_preprocessor wins, so the other one does nothing."),
    "FD012": Rule("uneven-passes", "warning", "A rank that ran out would leave the others waiting, so a pass is as long as the shortest."),
    # FS: schedules and LR
    "FS001": Rule("empty-span", "error", "A schedule must end after it begins."),
    "FS002": Rule("no-way-up-from-zero", "error", "Schedules that overlap one with a floor step from value to value, and no factor leads up from 0."),
    "FS003": Rule("epochs-in-iteration-loop", "error", "An iteration loop has no epochs to count."),
    "FS004": Rule("lr-scaling-without-base", "error", "Scaling an LR needs the batch size it was tuned for."),
    "FS005": Rule("schedule-without-optimizer", "error", "A schedule moves an optimizer's parameters."),
    "FS006": Rule("schedule-not-applied", "warning", "The hook that sets scheduled values was removed."),
    "FS007": Rule("schedule-never-begins", "warning", "A schedule that begins after the run ends has no effect."),
    "FS008": Rule("schedule-of-missing-key", "error", "A schedule must move a key the optimizer's groups have."),
    "FS009": Rule("plateau-unwatched", "error", "A plateau is told by a metric that validations report."),
    "FS010": Rule("custom-key-matches-nothing", "error", "A custom key that is in no parameter's name changes nothing."),
    "FS011": Rule("multiplier-without-value", "error", "A multiplier needs the value it multiplies."),
    # FO: which optimizer trains what
    "FO001": Rule("parameter-without-optimizer", "error", "A parameter that trains and that no optimizer updates stays as it is, silently."),
    "FO002": Rule("parameter-of-two-optimizers", "error", "Two optimizers would move one parameter, each unaware of the other."),
    "FO003": Rule("optimizer-without-parameters", "error", "An optimizer of several trains the submodule it is named after."),
    "FO004": Rule("several-without-train-step", "error", "Only the model's own train_step can say which optimizer is updated when."),
    "FO005": Rule("unequal-windows", "error", "Checkpoints fall where no accumulation window is open, so all optimizers share the run's windows."),
    "FO006": Rule("unfit-parameters", "error", "Some optimizers take parameters or gradients of one kind only."),
    "FO007": Rule("sharded-without-ranks", "error", "Optimizer state is spread over ranks, and there is one."),
    "FO008": Rule("updates-within-a-window", "error", "A window's gradients are of one update; more, or a step left out, would be lost or counted twice."),
    "FO009": Rule("schedules-of-no-optimizer", "error", "Schedules by name must name optimizers that are there."),
    # FC: checkpoints, validation, resume
    "FC001": Rule("resume-and-load-from", "error", "A run can start from one place."),
    "FC002": Rule("unknown-best-rule", "error", "Whether more or less of a metric is better cannot be guessed."),
    "FC003": Rule("best-without-validation", "error", "The best checkpoint is chosen by a validation that never runs."),
    "FC004": Rule("bad-name-template", "error", "Checkpoint names must be plain file names with one counter."),
    "FC005": Rule("resume-differs", "error", "The checkpoint belongs to another training trajectory."),
    "FC006": Rule("nothing-saved", "warning", "The run ends without any checkpoint."),
    "FC007": Rule("already-done", "info", "The checkpoint to resume is already at the end of the run."),
    "FC008": Rule("nothing-to-resume", "info", "No checkpoint was found, so the run starts fresh."),
    "FC009": Rule("unresumable-checkpoint", "error", "The named checkpoint holds no training state to continue from."),
    "FC010": Rule("bad-path", "error", "The path cannot name what it should."),
    "FC011": Rule("hook-state-left-behind", "warning", "What a hook has gathered goes on only in a hook of its own type."),
    "FC012": Rule("hook-starts-anew", "info", "A hook the checkpoint does not know has nothing to go on from."),
    "FC013": Rule("loop-without-state", "error", "A loop that says nothing of its state cannot go on where it stopped."),
    "FC014": Rule("gradients-lost", "warning", "A checkpoint inside an accumulation window has no gradients of it."),
    "FC015": Rule("epoch-told-otherwise", "info", "FlexibleRunner counts one too many where it saves again after a validation."),
    "FC017": Rule("no-room-for-a-checkpoint", "error", "A run whose first checkpoint cannot be saved loses everything at its first failure."),
    "FC018": Rule("room-for-fewer", "warning", "A disk that fills up while a run goes on fails its later checkpoints."),
    # FP: parallelism and precision
    "FP001": Rule("strategy-without-launcher", "error", "A distributed strategy needs ranks."),
    "FP002": Rule("launcher-without-environment", "error", "The launcher's variables are not there."),
    "FP003": Rule("single-device-in-world", "error", "Ranks without a distributed strategy train apart and overwrite each other."),
    "FP004": Rule("unsupported-precision", "error", "The device cannot compute in this precision."),
    "FP005": Rule("backend-device-mismatch", "error", "The backend cannot move this device's tensors."),
    "FP006": Rule("loss-scale-without-float16", "warning", "Only float16 gradients underflow; the setting does nothing."),
    "FP007": Rule("model-states-exceed-memory", "error", "A rank holds the model, its gradients and its optimizer state, or its share of them."),
    "FP008": Rule("restart-begins-anew", "error", "A job that is started again must go on where it was."),
    "FP009": Rule("strategy-chosen", "info", "What was left to be chosen is told with the facts it was chosen by."),
    "FP010": Rule("gpus-only", "error", "What torch computes on GPUs alone would end the run in its first step."),
    "FP011": Rule("static-graph-in-windows", "error", "Torch learns a static graph from a first backward that ranks share."),
    "FP020": Rule("uneven-mesh", "error", "Copies of a sharded or cut model need ranks in equal numbers."),
    "FP021": Rule("needs-whole-tensors", "error", "A rank that holds a share of a parameter cannot do what looks at all of it."),
    "FP022": Rule("nothing-to-skip", "warning", "Initialisation is left out only where a checkpoint brings the weights."),
    "FP023": Rule("bad-sharding-unit", "error", "What is gathered together must exist, and hold its shared parameters whole."),
    "FP024": Rule("one-sharding-unit", "warning", "Gathering everything at once takes the memory that sharding should save."),
    "FP030": Rule("second-owner", "error", "What the plan decides can have no second owner inside the engine."),
    "FP031": Rule("left-to-the-engine", "error", "A value left open would be decided out of the plan's sight."),
    "FP032": Rule("needs-whole-parameters", "error", "Parameters or their state are not whole where this would look at them."),
    "FP040": Rule("unmatched-pattern", "error", "A pattern that matches no module cuts nothing, silently."),
    "FP041": Rule("two-styles", "error", "A layer is cut in one way."),
    "FP042": Rule("uncuttable-layer", "error", "Only a layer that is called, and whose weight is a matrix of features, computes in parts."),
    "FP043": Rule("uneven-cut", "error", "Ranks that compute a layer together hold equal parts of it."),
    "FP044": Rule("tensors-in-one", "error", "Tensors that stand in one are cut each by itself, or ranks would mix them up, silently."),
    "FP045": Rule("torn-tie", "error", "A shared parameter that is cut in two ways is two parameters."),
    "FP046": Rule("stranded-share", "warning", "A share that meets whole features is of another shape, or passes for the whole."),
    "FP047": Rule("other-samples", "error", "Ranks that compute one copy together must see the same samples and take the same steps."),
    "FP048": Rule("uneven-heads", "error", "A head is computed by one rank."),
    "FP049": Rule("uncounted-heads", "error", "Attention that counts on heads it does not have would cut others out of those it has, silently."),
    "FP050": Rule("gradient-of-a-share", "error", "A whole layer that works on shares has a part of its gradient on each rank."),
    # FR: reproducibility
    "FR001": Rule("seed-from-entropy", "info", "No seed was given; the recorded one repeats the run."),
    "FR002": Rule("deterministic-over-benchmark", "warning", "cudnn_benchmark picks algorithms by timing; deterministic wins."),
}  # fmt: skip


def problem(code: str, path: Path, message: str, remedy: str) -> Problem:
    """A finding of the table's severity."""
    return Problem(code=code, path=path, message=message, remedy=remedy, severity=RULES[code].severity)
