"""Peak memory of a training step that is not run: only the shapes of its tensors are computed.

The needs of a step on a large GPU can be computed on any machine this way. Only tensors count: the workspace of kernels,
fragmentation and the CUDA context are not included.
"""

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from benchmarks._training_implementations import OurTraining
from entitysam import build_model
from entitysam.losses import EntityCriterion
from entitysam.structures import Clip, ClipOutput, Targets


class LiveMemory(TorchDispatchMode):
    """Sums the storage of the tensors that operations create, until they are freed.

    Attributes:
        live, peak: bytes now, and at most so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: weakref.WeakSet = weakref.WeakSet()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        result = function(*arguments, **(keywords or {}))
        self.hold(tensor for tensor in tree_iter(result) if isinstance(tensor, Tensor))
        return result

    def hold(self, tensors: Iterable[Tensor]) -> None:
        """Counts tensors, each storage once."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage not in self._known:
                self._known.add(storage)
                self.live += storage.nbytes()
                weakref.finalize(storage, self._release, storage.nbytes())
        self.peak = max(self.peak, self.live)

    def _release(self, size: int) -> None:
        self.live -= size


class FirstMatched(EntityCriterion):
    """The criterion without the matching, which needs values."""

    def match(self, output: ClipOutput, targets: Targets, generator: Any = None) -> tuple[Tensor, Tensor]:
        both = torch.arange(len(targets))
        return both, both


def shapes_only(model: nn.Module, mode: FakeTensorMode) -> None:
    """Replaces a model's tensors by fake tensors of the same shape."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            fake = mode.from_tensor(parameter.detach())
            setattr(module, name, nn.Parameter(fake, requires_grad=parameter.requires_grad))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, mode.from_tensor(buffer))


def simulated_peak(
    name: str, num_frames: int, image_size: int, dtype: str, checkpointed: bool, num_targets: int = 12
) -> tuple[float, float]:
    """GiB of the second of two steps of our implementation, with the optimiser's states: peak, and held between steps."""
    model = build_model(name, image_size=image_size, checkpoint_activations=checkpointed).train()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        shapes_only(model, mode)
        frames = torch.zeros(num_frames, 3, image_size, image_size, dtype=torch.uint8)
        masks = torch.zeros(num_targets, num_frames, image_size, image_size, dtype=torch.bool)
        clip = Clip(frames, Targets(masks, torch.zeros(num_targets, dtype=torch.int64)), "")
        implementation = OurTraining(model, clip, dtype, FirstMatched())
        memory = LiveMemory()
        memory.hold([*model.parameters(), *model.buffers(), frames, masks])
        with memory:
            implementation.step()
            memory.peak = held = memory.live
            implementation.step()
    return memory.peak / 2**30, held / 2**30
