"""What a tensor-parallel plan's lines mean for a model that has been looked at: layers that are there, and can be cut."""

from collections.abc import Iterable, Iterator

from attrs import field, frozen

from flexcore.facts import ModuleFact, ParameterFact
from flexcore.problems import Path, Problem, did_you_mean, shown
from flexcore.rules import problem
from flexcore.tensor_parallel import CUT_DIMS, STYLES, Row, matches

# Last names of layers that mostly hold several matrices in one: how their rows lie cannot be told from outside.
PACKED = frozenset({
    "qkv", "wqkv", "to_qkv", "qkv_proj", "in_proj", "c_attn", "query_key_value", "kv", "to_kv", "kv_proj", "w13",
    "gate_up", "gate_up_proj",
})  # fmt: skip
MATRIX = 2
READS_WEIGHTS = "MultiheadAttention"  # torch's own: it takes its layers' weights and never calls them


@frozen
class Met:
    """A module and the line of the plan that it is cut by."""

    module: ModuleFact
    line: Row

    @property
    def path(self) -> str:
        return self.module.path

    @property
    def scope(self) -> str:
        """What holds the module; "" for the model itself."""
        return self.path.rpartition(".")[0]


@frozen
class Cutting:
    """modules, parameters: the model's. size: ranks that compute a layer together. place: of the plan in the config."""

    modules: tuple[ModuleFact, ...]
    parameters: tuple[ParameterFact, ...]
    size: int
    place: Path
    shapes: dict[str, tuple[int, ...]] = field(init=False, repr=False, eq=False)

    @shapes.default
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {parameter.name: parameter.shape for parameter in self.parameters}

    def problems(self, lines: Iterable[Row]) -> Iterator[Problem]:
        chosen: dict[str, Met] = {}
        for line in lines:
            met = [module for module in self.modules if matches(line.pattern, module.path)]
            if not met:
                yield self._unmatched(line)
            for module in met:
                first = chosen.setdefault(module.path, Met(module, line)).line
                yield from (
                    self._layer(Met(module, line)) if first is line else self._second(line, module, first)
                )
        yield from self._ties(chosen)
        yield from self._stranded(tuple(chosen.values()))
        yield from self._heads(chosen)

    def _at(self, line: Row) -> Path:
        return (*self.place, line.pattern)

    def _unmatched(self, line: Row) -> Problem:
        paths = [module.path for module in self.modules]
        guess = did_you_mean(line.pattern, paths).strip()
        text = "is the path of no module in the model."
        return problem("FP040", self._at(line), text, guess or f"Its first are {', '.join(paths[:5])}.")

    def _second(self, line: Row, module: ModuleFact, first: Row) -> Iterator[Problem]:
        """One layer may be named twice, if alike."""
        if (first.style, first.parts or 1) != (line.style, line.parts or 1):
            text = f"makes {module.path} {_told(line)}, and {shown(first.pattern)} makes it {_told(first)}."
            yield problem("FP041", self._at(line), text, "Let each layer match one of them.")

    def _layer(self, met: Met) -> Iterator[Problem]:
        """The first thing that is in the way of cutting one layer."""
        line, path = met.line, met.path
        if STYLES[line.style].cut is None:
            return
        if met.module.kind is None:
            text = f"{path} is a {met.module.type}, and a style cuts plain Linear and Embedding layers."
            yield problem("FP042", self._at(line), text, "Name the layers inside it.")
        elif any(one.type == READS_WEIGHTS for one in self._around(path)):
            text = (
                f"{path} stands in a {READS_WEIGHTS}, which takes its layers' weights and never calls them."
            )
            yield problem("FP042", self._at(line), text, "Use an attention that calls its layers.")
        elif met.module.kind == "embedding" and (line.parts or 1) > 1:
            text = f"{path} is an Embedding, whose outputs are one tensor."
            yield problem("FP042", self._at(line), text, "Drop parts.")
        elif line.style == "colwise" and line.parts is None and path.rpartition(".")[2].lower() in PACKED:
            text = f"{path} seems to hold several tensors in one, and which rows are a rank's depends on how they lie."
            remedy = 'Write dict(style="colwise", parts=3) for three one after the other, parts=1 where head follows head.'
            yield problem("FP044", self._at(line), text, remedy)
        else:
            yield from self._divided(met)

    def _around(self, path: str) -> list[ModuleFact]:
        """The modules a module stands in, innermost first."""
        inside = [module for module in self.modules if path.startswith(f"{module.path}.")]
        return sorted(inside, key=lambda module: -len(module.path))

    def _divided(self, met: Met) -> Iterator[Problem]:
        kind, cut, parts = met.module.kind, STYLES[met.line.style].cut, met.line.parts or 1
        assert kind is not None
        assert cut is not None
        shape = self.shapes.get(f"{met.path}.weight", ())
        if len(shape) != MATRIX:  # facts from elsewhere
            return
        features = shape[CUT_DIMS[kind, cut]]
        if features % parts:
            text = f"{met.path} has {features} {cut}, which are no {parts} tensors of one size."
            yield problem("FP043", self._at(met.line), text, "Correct parts.")
        elif features % (parts * self.size):
            each = "" if parts == 1 else f" in each of {parts} parts"
            text = f"{met.path} has {features // parts} {cut}{each}, which {self.size} ranks cannot share evenly."
            yield problem(
                "FP043", self._at(met.line), text, "Use a size that divides them, or leave the layer whole."
            )

    def _ties(self, chosen: dict[str, Met]) -> Iterator[Problem]:
        """Shared parameters must be cut alike wherever they stand."""
        for parameter in self.parameters:
            if parameter.alias is None:
                continue
            both = [chosen.get(name.rpartition(".")[0]) for name in (parameter.name, parameter.alias)]
            if _dimension(both[0]) != _dimension(both[1]):
                line = next(met.line for met in both if met is not None)
                text = f"{parameter.name} is the same parameter as {parameter.alias}, and they would be cut differently."
                remedy = "Cut both alike (an embedding rowwise, its head colwise_rep), or neither."
                yield problem("FP045", self._at(line), text, remedy)

    def _stranded(self, chosen: tuple[Met, ...]) -> Iterator[Problem]:
        """Layers that give a share nobody beside them takes, or take one nobody gives; one finding a line."""
        gives = [met for met in chosen if STYLES[met.line.style].gives_share]
        takes = [met for met in chosen if STYLES[met.line.style].takes_share and met.module.kind == "linear"]
        told: set[Row] = set()
        for ones, others, words in (
            (gives, takes, ("gives", "takes", "needed")),
            (takes, gives, ("takes", "gives", "given")),
        ):
            for met in ones:
                if met.line in told or any(_within(met.scope, other.path) for other in others):
                    continue
                told.add(met.line)
                text = (
                    f"{met.path} {words[0]} a share of the features, and no layer beside it {words[1]} one."
                )
                remedy = f'Use "{met.line.style}_rep" if the whole is {words[2]}.'
                yield problem("FP046", self._at(met.line), text, remedy)

    def _heads(self, chosen: dict[str, Met]) -> Iterator[Problem]:
        """Attention whose layers are cut computes with fewer heads: they must divide, and the plan say who counts them."""
        cut: dict[str, Met] = {}
        for met in chosen.values():
            owner = next((one for one in self._around(met.path) if one.heads), None)
            if owner is not None and STYLES[met.line.style].gives_share:
                cut.setdefault(owner.path, Met(owner, met.line))
        open_kinds: set[tuple[str, tuple[int, ...]]] = set()
        for met in cut.values():
            kind = (met.module.type, met.module.heads)
            if any(count % self.size for count in met.module.heads):
                text = f"{met.path} computes with {_counts(met.module)} heads, which {self.size} ranks cannot share evenly."
                yield problem("FP048", self._at(met.line), text, "Use a size that divides them.")
            elif self.size > 1 and met.path not in chosen and kind not in open_kinds:
                open_kinds.add(kind)
                yield self._uncounted(met)
        for met in chosen.values():
            if STYLES[met.line.style].divides and met.path not in cut:
                text = f"{met.path} has no heads that are cut: a number of heads, and layers within that give shares."
                yield problem("FP042", self._at(met.line), text, "Remove it, or cut its layers.")

    def _uncounted(self, owner: Met) -> Problem:
        """owner.line: of a layer inside; as much of its pattern as names the owner is the owner's."""
        pattern = ".".join(owner.line.pattern.split(".")[: owner.path.count(".") + 1])
        fewer = " and ".join(str(count // self.size) for count in owner.module.heads)
        text = f"{owner.module.type} was built with {_counts(owner.module)} heads, of which a rank computes {fewer}, and whether its forward counts on them cannot be told."
        remedy = f'Add "{pattern}": "fewer_heads" to divide the number it holds, or "replicate" where it is inferred: view(..., -1, head_dim).'
        return problem("FP049", self._at(owner.line), text, remedy)


def _told(line: Row) -> str:
    return line.style if line.parts in (None, 1) else f"{line.style} in {line.parts} parts"


def _counts(module: ModuleFact) -> str:
    return " and ".join(str(count) for count in module.heads)


def _within(scope: str, path: str) -> bool:
    return not scope or path.startswith(f"{scope}.")


def _dimension(met: Met | None) -> tuple[int, int] | None:
    """(dimension of the weight, parts) that a layer is cut along; None: it stays whole."""
    cut = None if met is None else STYLES[met.line.style].cut
    if met is None or met.module.kind is None or cut is None:
        return None
    return CUT_DIMS[met.module.kind, cut], met.line.parts or 1
