"""Config files: composition, types, and messages with the full path of the key."""

from pathlib import Path

import pytest
import train_net
import yaml
from omegaconf import OmegaConf
from support.processes import run_here

from entitysam.config import Config, from_dict, load_config, shipped_folder, to_dict, to_yaml
from entitysam.registry import ConfigError

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(
    str(path.relative_to(shipped_folder("configs")).with_suffix(""))
    for path in shipped_folder("configs").rglob("*.yaml")
    if path.parent.name not in ("model", "data", "schedule") and not path.name.startswith("esam")
)


def write(folder, text, name="mine.yaml"):
    path = folder / name
    path.write_text(text)
    return path


def fails(config, *overrides):
    with pytest.raises(ConfigError) as error:
        load_config(config, overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", [name for name in SHIPPED if "stage" in name])
def test_experiments_by_name(name):
    config = load_config(name)
    assert config.model.name == "entity_sam"
    assert OmegaConf.get_type(config) is Config


def test_defaults_are_those_of_the_schema(tmp_path):
    config = load_config(write(tmp_path, "seed: 3\n"))
    assert config.seed == 3
    assert to_dict(config) == {**to_dict(OmegaConf.structured(Config)), "seed": 3}


def test_a_user_file_uses_shipped_groups(tmp_path):
    text = "defaults:\n  - model: vitl\n  - schedule: stage2\n  - _self_\nmodel: {num_entities: 7}\n"
    config = load_config(write(tmp_path, text))
    assert config.model.image_encoder.trunk == "sam2_hiera_large"
    assert config.model.num_entities == 7
    assert config.optim.max_iters == load_config("entitysam_vitl_stage2").optim.max_iters


def test_a_user_file_has_groups_of_its_own(tmp_path):
    (tmp_path / "model").mkdir()
    write(tmp_path, "defaults: [tiny_scratch]\nnum_entities: 3\n", "model/mine.yaml")
    config = load_config(write(tmp_path, "defaults:\n  - model: mine\n  - _self_\n"))
    assert (config.model.num_entities, config.model.channels) == (3, 64)


def test_overrides():
    overrides = [
        "optim.lr=1e-3",
        "model.entity_decoder.depth=6",
        "model.new_key=1",
        "output_dir=a/b",
        "optim.steps=[1,2]",
    ]
    config = load_config("tiny_scratch_stage1", overrides)
    assert config.optim.lr == 1e-3
    assert config.model.entity_decoder.depth == 6
    assert config.model.new_key == 1  # parts are checked when they are built
    assert config.output_dir == "a/b"
    assert config.optim.steps == [1, 2]


def test_a_group_is_chosen_on_the_command_line():
    assert load_config("tiny_scratch_stage1", ["model=vits"]).model.num_entities == 50


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("optim.learning_rate=1", "optim.learning_rate"),
        ("optimizer.lr=1", "optimizer"),
        ("train.amp.kind=bf16", "train.amp"),
        ("optim.lr=fast", "optim.lr"),
        ("train.tensorboard=perhaps", "train.tensorboard"),
        ("model=huge", "huge"),
        ("optim.lr", "optim.lr"),
    ],
)
def test_mistakes_on_the_command_line(override, named):
    assert named in fails("tiny_scratch_stage1", override)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("optim: {learning_rate: 1}\n", "optim.learning_rate"),
        ("evaluation:\n  datset: {}\n", "evaluation.datset"),
        ("seeds: 1\n", "seeds"),
        ("seed: many\n", "seed"),
        ("optim: {steps: 5}\n", "optim.steps"),
        ("defaults:\n  - model: huge\n", "huge"),
        ("seed: [1\n", "mine.yaml"),
        ("- 1\n- 2\n", "mine.yaml"),
        ("weights: 5\n", "weights: must be a file or a list of files, not '5'"),
        ("weights: [a, 5]\n", "weights: must be a file or a list of files"),
        ("\x00\x01", "mine.yaml"),
        ("seed: " + "[" * 5000, "mine.yaml"),
        ("a: &a [*a]\n", "an alias stands for a value that contains it"),
        (
            "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" if n else "a0: &a0 [x]\n" for n in range(12)),
            "values with its aliases expanded",
        ),
    ],
)
def test_mistakes_in_a_file(tmp_path, text, named):
    message = fails(write(tmp_path, text))
    assert named in message
    assert "mine.yaml" in message


def test_anchors_and_aliases_are_allowed(tmp_path):
    config = load_config(write(tmp_path, "seed: &n 3\noptim: {warmup_iters: *n}\n"))
    assert (config.seed, config.optim.warmup_iters) == (3, 3)


def test_a_file_that_is_too_large_is_refused(tmp_path):
    assert "larger than" in fails(write(tmp_path, "#" * (1 << 20) + "\n"))


def test_earlier_names_of_keys_are_still_read(tmp_path):
    mine = write(tmp_path, "defaults:\n  - schedule: tiny_scratch_stage1\n  - _self_\ntrain: {picture_period: 7}\n")
    assert load_config(mine).train.image_period == 7
    assert load_config(mine, ["train.image_period=9"]).train.image_period == 9
    assert load_config(mine, ["train.picture_period=8"]).train.image_period == 8
    assert from_dict({"train": {"picture_period": 6}}).train.image_period == 6


@pytest.mark.parametrize("name", ["nowhere", "nowhere.yaml", "model/huge"])
def test_no_such_file(name):
    assert fails(name).startswith(f"no config file '{name}'")


def test_printed_config_is_read_back(tmp_path):
    config = load_config("entitysam_vits_stage2", ["seed=5", "optim.lr=3e-6"])
    assert to_dict(load_config(write(tmp_path, to_yaml(config)))) == to_dict(config)


def test_to_dict_and_from_dict():
    config = load_config("tiny_scratch_stage2")
    assert to_dict(from_dict(to_dict(config))) == to_dict(config)
    with pytest.raises(ConfigError, match=r"optim\.speed"):
        from_dict({"optim": {"speed": 1}})


def test_print_config_of_the_training_command(monkeypatch, capsys):
    command = ["--config", "tiny_scratch_stage1", "--print-config", "seed=9"]
    done = run_here(monkeypatch, capsys, train_net.main, *command)
    assert yaml.safe_load(done.stdout) == to_dict(load_config("tiny_scratch_stage1", ["seed=9"]))
    wrong = run_here(monkeypatch, capsys, train_net.main, *command, "optim.speed=1")
    assert wrong.returncode == 1
    assert "optim.speed" in wrong.stderr


def test_aliases_that_multiply_are_refused(tmp_path):
    levels = "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi"))
    bombs = {
        "a: &a [x]\n" + levels: "more than 10000 values",
        "a: &a [*a]\n": "contains it",
        "a: " + "[" * 5000 + "]" * 5000: "nested too deeply",
    }
    for text, message in bombs.items():
        with pytest.raises(ConfigError, match=message):
            load_config(write(tmp_path, text))
