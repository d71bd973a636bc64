"""Configs: YAML files composed by Hydra and checked against the typed schema below.

An unknown key, in a file or on the command line, raises a `ConfigError` with its full path. Config objects stop at the
builders (`entitysam.engine.build`): no part of the network, the data or the losses receives one.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from entitysam.errors import ConfigError
from entitysam.shipped import shipped_folder

Part = dict[str, Any]  # {name: as registered, key: argument}; its keys are checked by `registry.build`
RENAMED = {"train.picture_period": "train.image_period"}  # earlier keys, which are still read
MAX_FILE_BYTES, MAX_NODES = 1 << 20, 10_000  # of a YAML file; aliases count with everything that they stand for


@dataclass
class DataConfig:
    """Training data: `dataset` and `mapper` are parts of DATASETS; the mapper makes a clip of a sample.

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
    clips_per_forward: int = 1  # clips of one frame that form a batch of the network
    amp: str = "bf16"  # fp32 | bf16 | fp16
    ema: float = (
        0.0  # decay of an exponential moving average of the weights, which is what is saved at the end; 0 = none
    )
    log_period: int = 20
    image_period: int = 1000
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
    appearance: str = "tokens"  # what ids compare: tokens, none, or weights of MASA (a file, or masa_tiny)
    ids: str | None = None  # queries (published) or tracks; see `inference.segmenter`. None = what the model says
    dense: bool = False  # offline, every pixel belongs to the most probable entity; STQ^EN counts pixels without one
    online_window: int = 7  # passes; the online confidence of an entity is the median of its last scores
    fast: int = 0  # level of speed, 0 = exact to 3; see `entitysam.speed`
    compile: bool = False  # by torch.compile; see `entitysam.inference.compiled`


@dataclass
class ArithmeticConfig:
    """How the process computes; see `precision.set_arithmetic`."""

    matmul: str = "highest"  # float32 products on a GPU: highest | high (TF32) | medium
    cudnn_benchmark: bool = False
    deterministic: bool = False


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
    methods: list[Part] = field(
        default_factory=list
    )  # to compare: {method, label, paper}; see `engine.evaluate.methods`


@dataclass
class Config:
    """The root of every config file."""

    model: Part = field(default_factory=dict)
    weights: Any = ""  # initial weights: a file, or a list (releases of SAM 2.1 and DINOv2); empty = random
    data: DataConfig = field(default_factory=DataConfig)
    criterion: Part = field(default_factory=dict)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    arithmetic: ArithmeticConfig = field(default_factory=ArithmeticConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    seed: int = 0
    output_dir: str = "output/run"


def read_shipped(group: str, name: str) -> dict[str, Any]:
    """`configs/<group>/<name>.yaml` as plain data, for files that are no configs: "categories", "prompts".

    Raises:
        ConfigError: no such file; the message lists the known names.
    """
    folder = shipped_folder("configs") / group
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise ConfigError(f"no {group} '{name}'; known: {known}")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file with one mapping, as plain data.

    Raises:
        ConfigError: no such file, bad or too large YAML, or something else in it.
    """
    if not Path(path).is_file():
        raise ConfigError(f"no file {path}")
    check_yaml(Path(path))
    contents = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    if not isinstance(contents, dict):
        raise ConfigError(f"{path}: must hold a mapping")
    return contents


def load_config(config: str | Path, overrides: Sequence[str] = ()) -> DictConfig:
    """Composes a config file with its defaults and overrides, and checks it.

    Args:
        config: path of a YAML file (its groups are looked up beside it and in the shipped `configs/`), or a name
            below the shipped `configs/`, e.g. "entitysam_vits_stage1" or "eval/vipseg".
        overrides: `key=value` in Hydra's syntax, e.g. "optim.lr=1e-4", "model.entity_decoder.depth=6", "model=vitl".

    Returns:
        A typed DictConfig with the fields of `Config`.

    Raises:
        ConfigError: no such file, unknown key (named by its path), wrong type, bad or too large YAML.
    """
    from hydra import compose, initialize_config_dir  # slow to import, and few commands compose a config
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    shipped = shipped_folder("configs").resolve()
    path = Path(config)
    if not path.is_file() and path.suffix != ".yaml":
        path = shipped / f"{config}.yaml"
    if not path.is_file():
        raise ConfigError(f"no config file '{config}' (looked for {path})")
    path = path.resolve()
    check_yaml(path)
    root = path.parent
    searchpath = [] if root == shipped else [f"hydra.searchpath=[file://{shipped}]"]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(root), version_base="1.3"):
            composed = compose(
                path.stem, [*searchpath, *(_forced(override, (root, shipped)) for override in overrides)]
            )
        keys = (override.partition("=")[0].lstrip("+") for override in overrides)
        set_here = {RENAMED.get(key, key) for key in keys}
        return _typed(OmegaConf.to_container(composed), set_here)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{config}: {_one_line(error)}") from error


def check_yaml(path: Path) -> None:
    """Refuses a YAML file that would expand to a huge config ("billion laughs").

    Raises:
        ConfigError: more than `MAX_FILE_BYTES` bytes, more than `MAX_NODES` nodes after aliases are expanded, an alias
            inside its own anchor, or bad YAML.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES} bytes, which is no config")
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)
        _count_nodes(root, {}, path)
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: no YAML file ({_one_line(error)})") from error


def _count_nodes(node: Any, sizes: dict[int, int], path: Path) -> int:
    """Number of nodes below a YAML node with all aliases expanded; `sizes` has those of the nodes visited so far."""
    key = id(node)
    if key in sizes:
        if sizes[key] == 0:  # still being counted
            raise ConfigError(f"{path}: an alias stands for a value that contains it")
        return sizes[key]
    sizes[key] = 0
    children = []
    if isinstance(node, yaml.MappingNode):
        children = [child for pair in node.value for child in pair]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    size = 1 + sum(_count_nodes(child, sizes, path) for child in children)
    if size > MAX_NODES:
        raise ConfigError(f"{path}: more than {MAX_NODES} values with its aliases expanded")
    sizes[key] = size
    return size


def _typed(values: Any, set_here: Collection[str] = ()) -> DictConfig:
    """Plain or composed values as a typed config.

    Args:
        values: a plain mapping.
        set_here: keys that a command line sets, which an earlier name of the key in a file does not override.
    """
    for old, new in RENAMED.items():
        group, _, key = old.rpartition(".")
        node = values.get(group)
        if isinstance(node, dict) and key in node:
            value = node.pop(key)
            if new not in set_here:
                node[new.rpartition(".")[2]] = value
    config: DictConfig = OmegaConf.merge(OmegaConf.structured(Config), values)  # type: ignore[assignment]
    weights = to_dict(config)["weights"]
    if not isinstance(weights, str) and not (isinstance(weights, list) and all(isinstance(w, str) for w in weights)):
        raise ConfigError(f"weights: must be a file or a list of files, not '{weights}'")
    return config


def _forced(override: str, roots: Sequence[Path]) -> str:
    """`key=value` as Hydra's `++key=value`, which also sets keys that only the schema has; groups stay unchanged."""
    key, equals, value = override.partition("=")
    key = RENAMED.get(key, key)
    is_group = any((root / key).is_dir() for root in roots)
    given = f"{key}{equals}{value}"
    return given if is_group or key[:1] in "+~" or "@" in key else f"++{given}"


def _one_line(error: Exception) -> str:
    """The first informative line of a message of Hydra or OmegaConf, with the full path of the key."""
    cause = error.__cause__ or error  # Hydra wraps the errors of OmegaConf
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or [type(cause).__name__]
    full_key = getattr(cause, "full_key", None)
    if full_key:
        return f"{full_key}: {lines[0]}"
    return " ".join(lines[:2])


def to_yaml(config: DictConfig) -> str:
    """The config as YAML, resolved; reading it back gives the same config."""
    return OmegaConf.to_yaml(config, resolve=True)


def to_dict(config: DictConfig) -> dict[str, Any]:
    """The config as plain, resolved Python, e.g. for a checkpoint."""
    return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]


def from_dict(values: dict[str, Any]) -> DictConfig:
    """A config from the values of `to_dict`, checked again.

    Raises:
        ConfigError: an unknown key or a wrong type.
    """
    try:
        return _typed(OmegaConf.to_container(OmegaConf.create(values)))
    except OmegaConfBaseException as error:
        raise ConfigError(_one_line(error)) from error
