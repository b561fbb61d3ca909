"""DeepSpeed's own file is read with the config that names it, and problems in it are told by its lines."""

import json

import pytest

import flexcore
from flexcore.problems import ConfigError
from shell import files
from shell.cli import with_places
from tests.flexcore.base import KNOWN, base

NATIVE = {"zero_optimization": {"stage": 2}, "gradient_clipping": 0.5}


@pytest.fixture
def written(tmp_path):
    """The path of a config under configs/ that names engines/ds.json, which holds this text."""

    def write(text, name="../engines/ds.json", kind="DeepSpeedStrategy"):
        for folder in ("configs", "engines"):
            (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / "engines" / "ds.json").write_text(text)
        config = base(
            launcher="pytorch", optim_wrapper={"optimizer": "AdamW"}, strategy={"type": kind, "config": name}
        )
        (tmp_path / "configs" / "main.json").write_text(json.dumps(config))
        return tmp_path / "configs" / "main.json"

    return write


@pytest.mark.parametrize("kind", ["DeepSpeedStrategy", "MMDeepSpeedStrategy", "mmengine.DeepSpeedStrategy"])
def test_the_file_takes_the_place_of_its_name(written, kind):
    source = files.read(str(written(json.dumps(NATIVE), kind=kind)))
    assert source.data["strategy"] == {"type": kind, "config": NATIVE}
    plan = flexcore.plan(source.data, KNOWN)
    assert flexcore.backends.native(plan)["zero_optimization"] == {"stage": 2}
    assert plan.to_json() == flexcore.Plan.from_json(plan.to_json()).to_json()


def test_a_problem_inside_is_told_by_its_line(written):
    path = written('{\n  "zero_optimization": {\n    "stagee": 2\n  }\n}')
    source = files.read(str(path))
    with pytest.raises(ConfigError) as caught:
        flexcore.plan(source.data, KNOWN)
    engine = path.parent / ".." / "engines" / "ds.json"
    assert str(with_places(caught.value, source)) == (
        f"strategy.config.zero_optimization.stagee ({engine}:3:5): is not a key of DeepSpeed's zero_optimization, "
        'which would ignore it. Did you mean "stage"? [FK010]'
    )


def test_on_the_command_line_it_is_named_as_the_shell_sees_it(written, monkeypatch):
    path = written(json.dumps(NATIVE), name="elsewhere.json")
    monkeypatch.chdir(path.parent)
    source = files.read("main.json", ["strategy.config=../engines/ds.json"])
    assert source.data["strategy"]["config"] == NATIVE


@pytest.mark.parametrize(
    ("text", "name", "told"),
    [
        ("{}", "../engines/d.json", ("strategy.config ({main}:{line}): DeepSpeed's configuration '../engines/d.json' does not exist: "
         "there is no file '{folder}/../engines/d.json'. Did you mean \"ds.json\"? It is named relative to the config that names it. [FK001]")),
        ("[]", "../engines/ds.json", ("strategy.config ({engine}:1): DeepSpeed's configuration '../engines/ds.json' holds [] where it "
         "needs a mapping. Write keys and values. [FK002]")),
        ('{"a": 1,}', "../engines/ds.json", ("config ({engine}:1:9): JSON syntax error: expected a key in double quotes, found '}}'. "
         "Correct the JSON there. [FK002]")),
        ('{"a": 1, "a": 2}', "../engines/ds.json", ("config ({engine}:1:10): The key 'a' is already set at {engine}:1:2; the first value "
         "would be lost. Keep one of the two. [FK004]")),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_told(written, monkeypatch, text, name, told):
    path = written(text, name=name)
    monkeypatch.chdir(path.parent.parent)
    column = path.read_text().index('"config"') + 1
    with pytest.raises(ConfigError) as caught:
        files.read("configs/main.json")
    assert str(caught.value) == told.format(
        main="configs/main.json", line=f"1:{column}", folder="configs", engine="configs/../engines/ds.json"
    )


def test_other_strategies_and_mappings_are_left_alone(written):
    path = written("{}", kind="DDPStrategy")
    assert files.read(str(path)).data["strategy"]["config"] == "../engines/ds.json"
