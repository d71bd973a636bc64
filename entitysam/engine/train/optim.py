"""AdamW or SGD with the published parameter groups, and learning-rate schedules as functions of the iteration."""

import math
from collections.abc import Mapping

import torch
from omegaconf import DictConfig
from torch import nn

from entitysam.registry import ConfigError


def parameter_groups(model: nn.Module, config: DictConfig) -> list[dict]:
    """Trained parameters grouped by weight decay: embeddings, normalisation layers, and all others.

    Embeddings are `nn.Embedding` tables and parameters whose own name ends in "embed" or "code"; normalisation layers are
    modules with "Norm" in their class name. Frozen parameters are in no group, shared parameters in one.

    Args:
        model: parameters with `requires_grad` are trained.
        config: `OptimConfig`.

    Raises:
        ConfigError: nothing is trained.
    """
    decays = {"other": config.weight_decay, "norm": config.weight_decay_norm, "embed": config.weight_decay_embed}
    factors = _factors(model, config.get("lr_factors") or {})
    members: dict[tuple[str, float], list[nn.Parameter]] = {}
    seen: set[int] = set()
    for kind in decays:  # in this order, whatever the module order is: the order of the groups is part of a checkpoint
        for path, module in model.named_modules():
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.requires_grad and id(parameter) not in seen and _kind(module, name) == kind:
                    seen.add(id(parameter))
                    members.setdefault((kind, _factor(path, factors)), []).append(parameter)
    if not seen:
        raise ConfigError("model.frozen: every parameter is frozen, nothing is left to train")
    return [
        {"params": parameters, "weight_decay": decays[kind]} | ({"lr_factor": factor} if factors else {})
        for (kind, factor), parameters in members.items()
    ]


def _factors(model: nn.Module, factors: Mapping[str, float]) -> dict[str, float]:
    for name in factors:
        try:
            model.get_submodule(name)
        except AttributeError as error:
            raise ConfigError(f"optim.lr_factors.{name}: {error}") from error
    return dict(factors)


def _factor(path: str, factors: Mapping[str, float]) -> float:
    """The factor of the longest named part that a module belongs to; 1 where it belongs to none."""
    inside = [name for name in factors if path == name or path.startswith(f"{name}.")]
    return factors[max(inside, key=len)] if inside else 1.0


def _kind(module: nn.Module, name: str) -> str:
    if "Norm" in type(module).__name__:
        return "norm"
    if isinstance(module, nn.Embedding) or name.endswith(("embed", "code")):
        return "embed"
    return "other"


def build_optimizer(model: nn.Module, config: DictConfig) -> torch.optim.Optimizer:
    """AdamW, or SGD with momentum, over the trained parameters; `config` is an `OptimConfig`.

    Raises:
        ConfigError: another `optim.name`.
    """
    groups = parameter_groups(model, config)
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    if config.name != "adamw":
        raise ConfigError(f"optim.name: adamw or sgd, not '{config.name}'")
    return torch.optim.AdamW(groups, lr=config.lr, fused=config.get("fused", False) or None)


def learning_rate(config: DictConfig, iteration: int) -> float:
    """Learning rate of an iteration (from 0): linear warm-up, then constant, steps by `gamma`, or half a cosine to 0.

    Raises:
        ConfigError: unknown schedule.
    """
    if config.schedule == "constant":
        factor = 1.0
    elif config.schedule == "step":
        factor = config.gamma ** sum(iteration >= step for step in config.steps)
    elif config.schedule == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * min(1.0, iteration / config.max_iters)))
    else:
        raise ConfigError(f"optim.schedule: step, cosine or constant, not '{config.schedule}'")
    warmup = min(1.0, (iteration + 1) / config.warmup_iters) if config.warmup_iters > 0 else 1.0
    return config.lr * factor * warmup


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_factor", 1.0)
