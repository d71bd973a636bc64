"""Mixed precision: the names of configs and command lines, and their autocast."""

from contextlib import AbstractContextManager, nullcontext

import torch

from entitysam.errors import ConfigError

AMP = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(amp: str, device: torch.device | str) -> AbstractContextManager:
    """The autocast of a precision on a device; no autocast for fp32.

    Raises:
        ConfigError: unknown precision.
    """
    if amp not in AMP:
        raise ConfigError(f"amp must be one of {', '.join(AMP)}, not '{amp}'")
    dtype = AMP[amp]
    return nullcontext() if dtype is None else torch.autocast(torch.device(device).type, dtype=dtype)
