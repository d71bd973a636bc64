"""What segments in tests of the page: a small random network."""

from golden.seeded_weights import seeded_state_dict

from entitysam.checkpoint.files import save_weights
from entitysam.engine.build import build_model, model_config
from entitysam.serve.segmenting import Limits, Prompter, Studio

SMALL = {"image_size": 64, "num_entities": 6}


def small_studio(folder):
    """A studio whose network finds entities on any picture, and a random SAM 2.1."""
    model = build_model("tiny_scratch", **SMALL)
    weights = seeded_state_dict({name: value.shape for name, value in model.state_dict().items()}, seed=2)
    model.load_state_dict({name: 6 * value if "_queries." in name else value for name, value in weights.items()})
    save_weights(folder / "small.safetensors", model, {**model_config("tiny_scratch"), **SMALL})
    return Studio(folder / "uploads", str(folder / "small.safetensors"), device="cpu", limits=Limits(upload_mib=4),
                  prompter=Prompter("sam2_tiny", "random", {"image_size": 64}))  # fmt: skip
