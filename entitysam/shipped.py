"""Configs and weights that are shipped with the package, and published weights on the Hugging Face hub.

Importing this module loads neither torch nor Hydra: a command checks its arguments with it before it imports them.
"""

from pathlib import Path

from entitysam.errors import CheckpointError, ConfigError
from entitysam.hub import HubFile, fetch_from_hub

RANDOM = "random"  # in place of a weight file: random initialisation
ALIASES = {"vit-s": "vits", "vit-l": "vitl"}
EXPORT_MANIFEST = "manifest.json"  # of an exported model
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth")
HUB = {  # revision and hash are pinned at the first download
    "vits": HubFile("mqye/entitysam", "checkpoints/vit-s/model_0009999.pth"),
    "vitl": HubFile("mqye/entitysam", "checkpoints/vit-l/model_0009999.pth"),
}
SAM2_FILES = {  # of SAM 2.1's release; not downloaded
    f"sam2_{size}": f"sam2.1_hiera_{size}.pt" for size in ("tiny", "small", "base_plus", "large")
}
TINY = {"tiny": "entitysam_tiny.safetensors", "masa_tiny": "masa_tiny.safetensors"}  # model -> file in `checkpoints/`


def shipped_folder(name: str) -> Path:
    """`configs/` or `checkpoints/`: below the package in an installed wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


def check_model_name(name: str) -> str:
    """Name of the config of a model, with aliases resolved.

    Raises:
        ConfigError: unknown model; the message lists the known ones of its family.
    """
    name = ALIASES.get(name, name)
    names = sorted(path.stem for path in (shipped_folder("configs") / "model").glob("*.yaml"))
    if name not in names:
        known = ", ".join(known for known in names if _family(known) == _family(name))
        raise ConfigError(f"unknown model '{name}'; known: {known}")
    return name


def _family(name: str) -> str:
    """What a model is for: a tracker, prompts, or entities."""
    return next((family for family in ("masa", "sam2") if name.startswith(family)), "entitysam")


def is_weight_file(name: str) -> bool:
    """Whether `--model NAME` is a weight file rather than the name of a model."""
    return Path(name).suffix in WEIGHT_SUFFIXES or Path(name).is_file()


def is_exported(name: str) -> bool:
    """Whether `--model NAME` is a folder that `entitysam export` made."""
    return (Path(name) / EXPORT_MANIFEST).is_file()


def default_weights(model: str) -> Path | None:
    """The weight file that belongs to a model by name; None where there is none and its weights are random.

    Raises:
        CheckpointError: see `fetch_weights`; no release file of SAM 2.1 in `checkpoints/`.
    """
    if model in SAM2_FILES:
        local = Path("checkpoints") / SAM2_FILES[model]
        if not local.is_file():
            raise CheckpointError(
                f"no weights of SAM 2.1: put {local.name} of its release into checkpoints/, or name its file"
            )
        return local
    if model in TINY:
        file = shipped_folder("checkpoints") / TINY[model]
        return file if file.is_file() else None
    return fetch_weights(model)


def fetch_weights(model: str, folder: str | Path = "checkpoints") -> Path:
    """The published weights of "vits" or "vitl": from `folder`, the hub's cache, or downloaded with progress.

    Raises:
        CheckpointError: unknown model, or download impossible; the message names the file to get and where to put it.
            Without a connection to the hub it is raised within `hub.PROBE_TIMEOUT` seconds.
    """
    if model not in HUB:
        raise CheckpointError(f"no published weights for '{model}'; there are: {', '.join(HUB)}")
    local = Path(folder) / f"entitysam_{model}.pth"
    if local.is_file():
        return local
    return fetch_from_hub(HUB[model], f"the weights of {model}", local)
