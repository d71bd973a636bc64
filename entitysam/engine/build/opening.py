"""From a name, a config or a weight file to a network with its weights: the only place that opens weights."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from entitysam.checkpoint import describe, load_weights, read_weights
from entitysam.engine.build.configs import merged, model_config, plain
from entitysam.engine.build.network import build_model, pick_device
from entitysam.errors import CheckpointError, ConfigError
from entitysam.io.record_store import file_fingerprint
from entitysam.sam2.names import load_sam2, release_size
from entitysam.shipped import EXPORT_MANIFEST, RANDOM, check_model_name, default_weights, is_exported, is_weight_file

logger = logging.getLogger(__name__)

ENTITY_SAM, MASA, SAM2 = "entity_sam", "masa", "sam2"  # `name` of a model node
TITLES = {ENTITY_SAM: "EntitySAM", MASA: "MASA", SAM2: "SAM 2.1"}
TIMM = "timm"  # in place of a weight file: the released weights of the ViT trunk

Weights = str | Path | Sequence[str | Path]


@dataclass
class OpenedModel:
    """A network in eval mode on its device.

    Attributes:
        model: the network.
        weights: the file of its weights; None = random.
        fingerprint: everything that determines its output, as plain data: equal for equal models.
    """

    model: Any
    weights: Path | None
    fingerprint: dict[str, Any]


def load_model(path_or_name: str | Path, device: str = "auto") -> Any:
    """A network with its weights, in eval mode, ready to run.

    Args:
        path_or_name: a weight file, or "tiny", "vit-s", "vit-l", "masa_tiny". Published weights are downloaded.
            A SAM 2.1 release file gives the promptable `SAM2`.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".

    Returns:
        an `EntitySAM`, a `MASA` or a `SAM2`.

    Raises:
        ConfigError: unknown model or device.
        CheckpointError, FileNotFoundError: weights that are missing, cannot be read, or do not fit.
    """
    return open_model(str(path_or_name), device=device).model


def open_model(
    model: str | Mapping[str, Any] = "",
    weights: Weights | None = None,
    *,
    device: str = "cpu",
    overrides: Mapping[str, Any] | None = None,
    kind: str = "",
    seed: int = 0,
    partial: bool = False,
) -> OpenedModel:
    """Builds a network and loads its weights.

    Args:
        model: a name, a weight file, the folder of an exported model, or a config node, whose keys are merged over those of the weight file's own config.
            Empty: the config that the weight file carries, or that of the published model it contains.
        weights: a file; several files with different parts; "random"; "timm" for the released weights of the ViT trunk.
            None: those that belong to the model's name.
        device: see `pick_device`.
        overrides: of the model node.
        kind: "entity_sam", "masa" or "sam2": the network that the caller needs.
        seed: of random weights.
        partial: the files need not contain all parts; the others keep their random weights (training starts so).

    Raises:
        ConfigError: unknown model, key or device; no model where one is needed; another kind of network.
        CheckpointError, FileNotFoundError: weights that are missing, cannot be read, or do not fit.
    """
    if isinstance(model, str) and model and is_exported(model):
        return _open_exported(Path(model), device, overrides, kind)
    target = pick_device(device)
    if isinstance(model, str) and is_weight_file(model):
        if weights is not None:
            raise ConfigError(f"two weight files: --model {model} and --weights {weights}")
        model, weights = "", model
    if weights is None:
        weights = default_weights(check_model_name(str(model))) or RANDOM
    files = _files(weights)
    node = merged(_node(model, None if partial or not files else files[0]), plain(overrides or {}))
    if kind and node.get("name") not in (kind, None):
        source = files[0] if files else f"model '{model}'"
        found = TITLES.get(node["name"], node["name"])
        lacks = ", for it lacks SAM 2's mask decoder" if (kind, node["name"]) == (SAM2, ENTITY_SAM) else ""
        raise CheckpointError(f"{source}: {_a(found)}, not {_a(TITLES[kind])}{lacks}")
    torch.manual_seed(seed)  # equal seeds give equal random weights
    network = build_model(node)
    for file in files:
        if node["name"] == SAM2:
            load_sam2(network, file)
        else:
            _load(network, file, partial)
    prints = [TIMM if file == TIMM else file_fingerprint(file) for file in files]
    fingerprint = {"config": node, "weights": prints or RANDOM, **({} if files else {"seed": seed})}
    return OpenedModel(network.to(target), Path(files[0]) if files else None, fingerprint)


def _open_exported(folder: Path, device: str, overrides: Mapping[str, Any] | None, kind: str) -> OpenedModel:
    """The folder of `entitysam export`, run by onnxruntime.

    Raises:
        ConfigError: overrides, another kind of network, a device that onnxruntime lacks.
        CheckpointError: files of the folder that are missing or were changed.
    """
    from entitysam.export.runtime import OnnxModel

    if overrides:
        raise ConfigError(
            f"{folder}: the config of an exported model cannot be changed (model.{next(iter(overrides))})"
        )
    if kind not in ("", ENTITY_SAM):
        raise ConfigError(f"{folder}: an exported EntitySAM, not {_a(TITLES[kind])}")
    model = OnnxModel(folder, device)
    files = {name: graph.sha256 for name, graph in model.manifest.graphs.items()}
    return OpenedModel(model, folder / EXPORT_MANIFEST, {**model.manifest.fingerprint, "exported": files})


def _a(title: str) -> str:
    return f"an {title}" if title[0] in "AEIO" else f"a {title}"


def _files(weights: Weights) -> list[str]:
    """The files to load; none for random weights."""
    several = [weights] if isinstance(weights, str | Path) else list(weights)
    return [str(file) for file in several if file and str(file) != RANDOM]


def _node(model: str | Mapping[str, Any], file: str | None) -> dict[str, Any]:
    """The config node of a model that is named, given, or found in its weight file."""
    if isinstance(model, str) and model:
        return model_config(model)
    given = plain(model or {})
    if file is None or file == TIMM:
        if not given:
            raise ConfigError("model: missing; with random weights name one, e.g. model=tiny")
        return given
    if not given:
        return config_of(file)
    return merged(read_weights(file)[1] or {}, given)


def config_of(file: str | Path) -> dict[str, Any]:
    """The model node of a weight file: the one inside, or that of the published model it contains.

    Raises:
        CheckpointError: it carries no config and is not a published model.
    """
    state, config = read_weights(file)
    if config is not None:
        return config
    size = release_size(state)
    if size is not None:
        return model_config(f"sam2_{size}")
    what = describe(state)
    published = re.search(r"\b(vits|vitl)\b", what)
    if published is None:
        raise CheckpointError(
            f"{file}: carries no config and seems to be {what}; name its model, e.g. --model NAME --weights {file}"
        )
    return model_config(published[1])


def _load(network: nn.Module, file: str, partial: bool) -> None:
    """Loads one file into a network.

    Raises:
        CheckpointError: it does not fit, or lacks parts that it has to contain.
    """
    if file == TIMM:
        load_timm_weights(network)
        return
    report = load_weights(network, file, new_parts=partial)
    logger.info("%s: %d tensors of %s", file, report.loaded, report.kind)
    lacking = [name for name in report.untouched if not name.endswith("num_batches_tracked")]
    if lacking and not partial:
        raise CheckpointError(
            f"{file}: a {report.kind} release is not a complete model; it lacks {', '.join(lacking[:3])}, ..."
        )


def load_timm_weights(network: nn.Module) -> None:
    """Loads the weights that timm releases for the trunk of a timm_pyramid, the semantic encoder, or MASA's backbone.

    Raises:
        ConfigError: the network has none of them.
    """
    import timm

    encoder: Any = getattr(getattr(network, "dual_encoder", None), "image_encoder", None)
    if hasattr(encoder, "load_pretrained"):  # a timm_pyramid
        encoder.load_pretrained()
        logger.info("timm: weights of %s", encoder.name)
        return
    trunk = timm_trunk(network)
    name = f"{trunk.pretrained_cfg['architecture']}.{trunk.pretrained_cfg['tag']}"
    released = timm.create_model(name, pretrained=True, num_classes=0).state_dict()
    trunk.load_state_dict({name: tensor for name, tensor in released.items() if name in trunk.state_dict()})
    logger.info("timm: weights of %s", name)


def timm_trunk(network: nn.Module) -> Any:
    """The part of a network for which timm has weights.

    Raises:
        ConfigError: there is none.
    """
    for part in ("dual_encoder.semantic_encoder.trunk", "backbone.trunk"):
        try:
            return network.get_submodule(part)
        except AttributeError:
            continue
    raise ConfigError("weights: 'timm' needs a model.image_encoder, model.semantic_encoder or model.backbone of timm")
