"""Configs and weights that are shipped with the package, and published weights on the Hugging Face hub.

Importing this module loads neither torch nor Hydra: a command checks its arguments with it before it imports them.
"""

import threading
import urllib.error
import urllib.request
from pathlib import Path

from entitysam.errors import CheckpointError, ConfigError

RANDOM = "random"  # in place of a weight file: random initialisation
ALIASES = {"vit-s": "vits", "vit-l": "vitl"}
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth")
HUB = {  # model -> (repository, file)
    "vits": ("mqye/entitysam", "checkpoints/vit-s/model_0009999.pth"),
    "vitl": ("mqye/entitysam", "checkpoints/vit-l/model_0009999.pth"),
}
TINY = {"tiny": "entitysam_tiny.safetensors", "masa_tiny": "masa_tiny.safetensors"}  # model -> file in `checkpoints/`
PROBE_TIMEOUT = 3.0  # seconds until the hub counts as unreachable


def shipped_folder(name: str) -> Path:
    """`configs/` or `checkpoints/`: below the package in an installed wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


def check_model_name(name: str) -> str:
    """Name of the config of a model, with aliases resolved.

    Raises:
        ConfigError: unknown model; the message lists the known ones, trackers only for a name of a tracker.
    """
    name = ALIASES.get(name, name)
    names = sorted(path.stem for path in (shipped_folder("configs") / "model").glob("*.yaml"))
    if name not in names:
        kind = name.startswith("masa")
        raise ConfigError(
            f"unknown model '{name}'; known: {', '.join(n for n in names if n.startswith('masa') == kind)}"
        )
    return name


def is_weight_file(name: str) -> bool:
    """Whether `--model NAME` is a weight file rather than the name of a model."""
    return Path(name).suffix in WEIGHT_SUFFIXES or Path(name).is_file()


def default_weights(model: str) -> Path | None:
    """The weight file that belongs to a model by name; None where there is none and its weights are random.

    Raises:
        CheckpointError: see `fetch_weights`.
    """
    if model in TINY:
        file = shipped_folder("checkpoints") / TINY[model]
        return file if file.is_file() else None
    return fetch_weights(model)


def fetch_weights(model: str, folder: str | Path = "checkpoints") -> Path:
    """The published weights of "vits" or "vitl": from `folder`, the hub's cache, or downloaded with progress.

    Raises:
        CheckpointError: unknown model, or download impossible; the message names the file to get and where to put it.
            Without a connection to the hub it is raised within `PROBE_TIMEOUT` seconds.
    """
    if model not in HUB:
        raise CheckpointError(f"no published weights for '{model}'; there are: {', '.join(HUB)}")
    repository, file = HUB[model]
    local = Path(folder) / f"entitysam_{model}.pth"
    if local.is_file():
        return local
    return fetch_from_hub(repository, file, f"the weights of {model}", local)


def fetch_from_hub(repository: str, file: str, title: str, local: Path) -> Path:
    """A file of a hub repository, from the hub's cache or downloaded with progress.

    Args:
        repository, file: "owner/name" and the path in it.
        title: what the file is, for the message.
        local: where a copy by hand belongs, for the message.

    Raises:
        CheckpointError: see `fetch_weights`.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(repository, file)
    if isinstance(cached, str):
        return Path(cached)
    try:
        if not hub_is_reachable():
            raise ConnectionError("no connection to the hub")
        return Path(hf_hub_download(repository, file))
    except Exception as error:  # offline, refused, removed: the remedy is the same
        raise CheckpointError(
            f"cannot download {title}: {type(error).__name__}. By hand: get '{file}' of the hub repository "
            f"'{repository}' and put it at {local}"
        ) from error


def hub_is_reachable() -> bool:
    """Whether the hub answers within `PROBE_TIMEOUT` seconds; honours proxy variables and HF_HUB_OFFLINE."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    answered: list[bool] = []

    def probe() -> None:
        request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=PROBE_TIMEOUT).close()
        except urllib.error.HTTPError:
            answered.append(True)  # an error status is an answer
        except OSError:
            return
        else:
            answered.append(True)

    thread = threading.Thread(target=probe, daemon=True)  # name resolution has no timeout of its own
    thread.start()
    thread.join(PROBE_TIMEOUT)
    return bool(answered)
