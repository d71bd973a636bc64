"""Precision: the names of configs and command lines, their autocast, and the arithmetic of the process."""

import os
from contextlib import AbstractContextManager, nullcontext

import torch

from entitysam.errors import ConfigError

AMP = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
MATMUL = ("highest", "high", "medium")


def autocast(amp: str, device: torch.device | str) -> AbstractContextManager:
    """The autocast of a precision on a device; no autocast for fp32.

    Raises:
        ConfigError: unknown precision.
    """
    if amp not in AMP:
        raise ConfigError(f"amp must be one of {', '.join(AMP)}, not '{amp}'")
    dtype = AMP[amp]
    return nullcontext() if dtype is None else torch.autocast(torch.device(device).type, dtype=dtype)


def set_arithmetic(matmul: str = "highest", cudnn_benchmark: bool = False, deterministic: bool = False) -> None:
    """Sets how this process computes; the defaults are those of PyTorch. `config.ArithmeticConfig` has the same keys.

    The layout of images needs no setting: convolutions of the encoders run in `channels_last`.

    Args:
        matmul: float32 products on a GPU: "highest" in float32; "high" in TF32, also in convolutions; "medium" may use
            bfloat16 (`torch.set_float32_matmul_precision`).
        cudnn_benchmark: cuDNN measures its algorithms for each shape and keeps the fastest; which one may differ between runs.
        deterministic: only deterministic algorithms; PyTorch raises a RuntimeError where there is none. Overrides
            `cudnn_benchmark`. cuBLAS reads the environment when it starts, so this must come before the first CUDA call.

    Raises:
        ConfigError: unknown `matmul`.
    """
    if matmul not in MATMUL:
        raise ConfigError(f"arithmetic.matmul: one of {', '.join(MATMUL)}, not '{matmul}'")
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32 = matmul != "highest"
    torch.backends.cudnn.benchmark = cudnn_benchmark and not deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
