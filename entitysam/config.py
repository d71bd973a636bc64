"""Configs: YAML files composed by Hydra, checked against the typed schema below.

A misspelt key, in a file or on the command line, is a `ConfigError` that names its full path. Config objects stop at
the builders (`entitysam.engine.build`): no part of the network, the data or the losses ever sees one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from entitysam.errors import ConfigError
from entitysam.shipped import shipped_folder

Part = dict[str, Any]  # {name: as registered, key: argument}; its keys are checked by `registry.build`
MAX_VALUES = 10_000  # of a config file, with aliases expanded


@dataclass
class DataConfig:
    """Training data. `dataset` is a part of DATASETS, `mapper` says how one image becomes a clip.

    `datasets` is a mix instead of `dataset`: each is a part of DATASETS with a `weight`, its relative share of the clips
    (default 1), and a `mapper` of keys that differ from `mapper` (default none).
    """

    dataset: Part = field(default_factory=dict)
    datasets: list[Part] = field(default_factory=list)
    mapper: Part = field(default_factory=dict)
    num_workers: int = 4


@dataclass
class OptimConfig:
    name: str = "adamw"  # adamw | sgd
    momentum: float = 0.9  # of sgd
    fused: bool = False  # one kernel for all tensors of adamw; faster, other rounding
    lr: float = 5e-5
    lr_factors: dict[str, float] = field(
        default_factory=dict
    )  # part of the model, by its dotted name -> factor of `lr`
    weight_decay: float = 0.05
    weight_decay_norm: float = 0.0
    weight_decay_embed: float = 0.0
    clip_norm: float = 0.01  # full-model gradient norm; 0 = no clipping
    warmup_iters: int = 10
    schedule: str = "step"  # step | cosine | constant
    steps: list[int] = field(default_factory=list)
    gamma: float = 0.1
    max_iters: int = 10000


@dataclass
class TrainConfig:
    batch_size: int = 8  # clips per optimiser step over all devices; accumulated where it exceeds the devices
    clips_per_forward: int = 1  # of clips of one frame: how many go through the network together
    amp: str = "bf16"  # fp32 | bf16 | fp16
    ema: float = (
        0.0  # decay of an exponential moving average of the weights, which is what is saved at the end; 0 = none
    )
    log_period: int = 20
    picture_period: int = 1000
    save_period: int = 1000
    eval_period: int = 0  # 0 = only at the end, where `evaluation.dataset` is given
    keep_last: int = 3  # checkpoints kept; 0 = all
    best_metric: str = "VEQ"  # of the evaluation; its best checkpoint stays as best.pt
    device: str = "auto"  # cuda where there is one, else cpu
    tensorboard: bool = True
    wandb: str = ""  # project name; empty = off


@dataclass
class InferenceConfig:
    warmup_frames: int = 3
    count_warmup: bool = True  # quirk 4
    score_threshold: float = 0.05
    max_entities: int = 100
    overlap_threshold: float = 0.7
    mask_threshold: float = 0.5
    hole_area: int = 8
    amp: str = "fp32"
    online_window: int = 7  # passes; the online confidence of an entity is the median of its last scores


@dataclass
class EvaluationConfig:
    dataset: Part = field(default_factory=dict)  # a part of DATASETS that yields videos
    evaluators: list[Part] = field(default_factory=list)  # parts of EVALUATORS
    task: str = "entity"  # entity | vps | vss | vis | mot
    classifier: Part = field(default_factory=dict)  # a part of CLASSIFIERS; empty = entities stay unnamed
    tracker: Part = field(
        default_factory=dict
    )  # {setting, association, detections, ...}; see `engine.methods.masa_tracking`
    reid: str = ""  # weights of MASA, by which entities that return get their old ids; empty = off
    paper: dict[str, dict[str, float]] = field(default_factory=dict)  # row of the paper -> its numbers, beside ours


@dataclass
class Config:
    """The root of every config file."""

    model: Part = field(default_factory=dict)
    weights: Any = ""  # file, or list of files (releases of SAM 2.1 and DINOv2), to start from; empty = random
    data: DataConfig = field(default_factory=DataConfig)
    criterion: Part = field(default_factory=dict)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    seed: int = 0
    output_dir: str = "output/run"


def read_shipped(group: str, name: str) -> dict[str, Any]:
    """`configs/<group>/<name>.yaml` as plain data, for lists that are no configs: "categories", "prompts".

    Raises:
        ConfigError: there is no such file; the known ones are named.
    """
    folder = shipped_folder("configs") / group
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise ConfigError(f"no {group} '{name}'; known: {known}")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def load_config(config: str | Path, overrides: Sequence[str] = ()) -> DictConfig:
    """Composes a config file with its defaults and overrides, and checks it.

    Args:
        config: path of a YAML file (its groups are looked up beside it and in the shipped `configs/`), or a name
            below the shipped `configs/`, e.g. "entitysam_vits_stage1" or "eval/vipseg".
        overrides: `key=value` in Hydra's syntax, e.g. "optim.lr=1e-4", "model.entity_decoder.depth=6", "model=vitl".

    Returns:
        A typed DictConfig with the fields of `Config`.

    Raises:
        ConfigError: no such file, unknown key (named by its path), wrong type, bad YAML.
    """
    shipped = shipped_folder("configs").resolve()
    path = Path(config)
    if not path.is_file() and path.suffix != ".yaml":
        path = shipped / f"{config}.yaml"
    if not path.is_file():
        raise ConfigError(f"no config file '{config}' (looked for {path})")
    path = path.resolve()
    try:
        _check_size(yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader))
    except RecursionError:
        raise ConfigError(f"{config}: nested too deeply") from None
    except (yaml.YAMLError, ValueError, OSError) as error:
        raise ConfigError(f"{config}: {_one_line(error)}") from error
    root = path.parent
    searchpath = [] if root == shipped else [f"hydra.searchpath=[file://{shipped}]"]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(root), version_base="1.3"):
            composed = compose(
                path.stem, [*searchpath, *(_forced(override, (root, shipped)) for override in overrides)]
            )
        return OmegaConf.merge(OmegaConf.structured(Config), composed)  # type: ignore[return-value]
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{config}: {_one_line(error)}") from error


def _check_size(node: yaml.Node | None, known: dict[int, int] | None = None) -> int:
    """Number of values of a YAML document with its aliases expanded, which can multiply them exponentially.

    Raises:
        ValueError: more than `MAX_VALUES`, or an alias inside of itself.
    """
    known = {} if known is None else known
    if id(node) in known:
        if known[id(node)] < 0:
            raise ValueError("an alias stands for a value that contains it")
        return known[id(node)]
    known[id(node)] = -1  # in progress
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        children = [child for pair in node.value for child in pair]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    size = 1 + sum(_check_size(child, known) for child in children)
    if size > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES} values with its aliases expanded")
    known[id(node)] = size
    return size


def _forced(override: str, roots: Sequence[Path]) -> str:
    """`key=value` as Hydra's `++key=value`, which also sets keys that only the schema names; groups stay as they are."""
    key = override.partition("=")[0]
    is_group = any((root / key).is_dir() for root in roots)
    return override if is_group or key[:1] in "+~" or "@" in key else f"++{override}"


def _one_line(error: Exception) -> str:
    """The useful first line of a Hydra / OmegaConf message, with the key's full path."""
    cause = error.__cause__ if isinstance(error, HydraException) and error.__cause__ else error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    full_key = getattr(cause, "full_key", None)
    if full_key:
        return f"{full_key}: {lines[0]}"
    return " ".join(lines[:2])


def to_yaml(config: DictConfig) -> str:
    """The config as YAML, resolved; reading it back gives the same config."""
    return OmegaConf.to_yaml(config, resolve=True)


def to_dict(config: DictConfig) -> dict[str, Any]:
    """The config as plain, resolved Python, e.g. to stand in a checkpoint."""
    return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]


def from_dict(values: dict[str, Any]) -> DictConfig:
    """A config from `to_dict`, checked again."""
    try:
        return OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.create(values))  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise ConfigError(_one_line(error)) from error
