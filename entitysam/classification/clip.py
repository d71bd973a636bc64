"""Zero-shot classification without a server: the class whose text lies nearest to the picture, by CLIP or SigLIP."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from entitysam.classification.classifier import Answer, ClassifierError, OnDone
from entitysam.classification.labels import Label
from entitysam.classification.visual_prompts import VisualPrompt
from entitysam.registry import CLASSIFIERS, ConfigError
from entitysam.shipped import RANDOM

TEMPLATES = (
    "a photo of a {}.",
    "a photo of the {}, cut out, on a black background.",
    "a cropped photo of a {}.",
    "a close-up photo of {}.",
    "{} in a scene.",
)


class ClipClassifier:
    """Compares pictures with the texts of all classes.

    Args:
        model: with `encode_image` and `encode_text`, as open_clip builds it, in eval mode on its device.
        preprocess: PIL picture -> [3, S, S].
        tokenizer: texts -> int64 [n, length].
        labels: the class list.
        templates: sentences with {} for the name; a class is the mean of its sentences.
        batch_size: pictures per pass.
        title: of the model, for reports.
    """

    def __init__(
        self,
        model: nn.Module,
        preprocess: Callable[[Image.Image], Tensor],
        tokenizer: Callable[[list[str]], Tensor],
        labels: Sequence[Label],
        templates: Sequence[str] = TEMPLATES,
        batch_size: int = 32,
        title: str = "clip",
    ) -> None:
        self.model = model
        self.preprocess = preprocess
        self.labels = labels
        self.batch_size = batch_size
        self.title = title
        self._device = next(model.parameters()).device
        self._pictures = 0
        self.class_features = self._encode_classes(tokenizer, templates)

    @torch.inference_mode()
    def _encode_classes(self, tokenizer: Callable[[list[str]], Tensor], templates: Sequence[str]) -> Tensor:
        """Unit vectors [n, C]."""
        features = []
        for label in self.labels:
            tokens = tokenizer([template.replace("{}", label.name) for template in templates]).to(self._device)
            features.append(F.normalize(self.model.encode_text(tokens).float(), dim=-1).mean(0))  # type: ignore[operator]
        return F.normalize(torch.stack(features), dim=-1)

    @torch.inference_mode()
    def classify(self, pictures: Sequence[bytes], on_done: OnDone = lambda count: None) -> list[Answer]:
        """An answer for each encoded picture; its confidence is the softmax over the class list."""
        answers: list[Answer] = []
        scale = self.model.logit_scale.exp()  # type: ignore[operator, union-attr]
        for start in range(0, len(pictures), self.batch_size):
            batch = pictures[start : start + self.batch_size]
            images = torch.stack([self.preprocess(_open(picture)) for picture in batch]).to(self._device)
            features = F.normalize(self.model.encode_image(images).float(), dim=-1)  # type: ignore[operator]
            confidence, index = (scale.float() * features @ self.class_features.T).softmax(-1).max(-1)
            answers += [Answer(self.labels[i].name, i, c) for i, c in zip(index.tolist(), confidence.tolist())]
            on_done(len(batch))
        self._pictures += len(pictures)
        return answers

    def statistics(self) -> dict[str, Any]:
        return {"model": self.title, "pictures": self._pictures}


@CLASSIFIERS.register("clip")
def clip_classifier(
    labels: tuple[Label, ...] | None,
    visual_prompt: VisualPrompt,
    model: str = "ViT-L-14",
    pretrained: str = "datacomp_xl_s13b_b90k",
    templates: Sequence[str] = TEMPLATES,
    batch_size: int = 32,
    device: str = "auto",
) -> ClipClassifier:
    """A `ClipClassifier` with a model of open_clip.

    Args:
        labels: the class list.
        visual_prompt: how the pictures are drawn.
        model: name in open_clip, "hf-hub:...", or "local-dir:..." for a machine without internet; the SigLIP ones need
            the package transformers besides.
        pretrained: name of the weights, or a file; "random" for tests.
        templates, batch_size: see `ClipClassifier`.
        device: "auto", "cpu", "cuda", ...

    Raises:
        ConfigError: no class list, a value out of its range, no such model, or the package is missing.
        ClassifierError: the weights cannot be had.
    """
    if labels is None:
        raise ConfigError("classifier 'clip' chooses from a list; names without one need 'vlm'")
    if batch_size < 1 or not templates or not all("{}" in template for template in templates):
        raise ConfigError("classifier 'clip': batch_size must be 1 or more, and every template needs a {}")
    try:
        import open_clip
    except ImportError:
        raise ConfigError(
            "classifier 'clip' needs the package 'open_clip_torch': pip install 'entitysam[label]'"
        ) from None
    if ":" not in model and model not in open_clip.list_models():
        raise ConfigError(f"classifier 'clip': open_clip has no model '{model}'")
    try:
        weights = None if pretrained == RANDOM or ":" in model else pretrained
        # "longest" pads with black instead of cutting off what does not fit into a square.
        built, _, preprocess = open_clip.create_model_and_transforms(model, weights, image_resize_mode="longest")
        tokenizer = open_clip.get_tokenizer(model)
        built = built.eval().to(_device(device))
    except (RuntimeError, OSError, ValueError, ImportError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ClassifierError(
            f"classifier 'clip': {model} with weights '{pretrained}' cannot be had ({reason})"
        ) from error
    return ClipClassifier(built, preprocess, tokenizer, labels, templates, batch_size, f"{model} {pretrained}")


def _device(name: str) -> torch.device:
    found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return torch.device(found if name == "auto" else name)


def _open(picture: bytes) -> Image.Image:
    return Image.open(io.BytesIO(picture)).convert("RGB")
