"""Zero-shot classification by CLIP or SigLIP, offline: the class whose text embedding is most similar to the image's."""

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
    """Compares image embeddings with the text embeddings of all classes.

    Args:
        model: a model of open_clip in eval mode, with `encode_image` and `encode_text`.
        preprocess: PIL image -> float [3, S, S].
        tokenizer: texts -> int64 [n, length].
        labels: the class list.
        templates: sentences with {} for the name; a class embedding is the mean over its sentences.
        batch_size: images per forward pass.
        title: name of the model in reports.
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
        self._num_images = 0
        self.class_features = self._encode_classes(tokenizer, templates)

    @torch.inference_mode()
    def _encode_classes(self, tokenizer: Callable[[list[str]], Tensor], templates: Sequence[str]) -> Tensor:
        """Class embeddings of unit length, float [n, C]."""
        features = []
        for label in self.labels:
            tokens = tokenizer([template.replace("{}", label.name) for template in templates]).to(self._device)
            embeddings = self.model.encode_text(tokens).float()  # type: ignore[operator]  # [templates, C]
            features.append(F.normalize(embeddings, dim=-1).mean(0))
        return F.normalize(torch.stack(features), dim=-1)

    @torch.inference_mode()
    def classify(self, images: Sequence[bytes], on_done: OnDone = lambda count: None) -> list[Answer]:
        """An answer for each encoded image; its confidence is the softmax over the class list."""
        answers: list[Answer] = []
        scale = self.model.logit_scale.exp()  # type: ignore[operator, union-attr]
        for start in range(0, len(images), self.batch_size):
            batch = images[start : start + self.batch_size]
            pixels = torch.stack([self.preprocess(_open(image)) for image in batch]).to(self._device)  # [B, 3, S, S]
            features = F.normalize(self.model.encode_image(pixels).float(), dim=-1)  # type: ignore[operator]
            logits = scale.float() * features @ self.class_features.T  # [B, n]
            confidence, index = logits.softmax(-1).max(-1)
            answers += [Answer(self.labels[i].name, i, c) for i, c in zip(index.tolist(), confidence.tolist())]
            on_done(len(batch))
        self._num_images += len(images)
        return answers

    def statistics(self) -> dict[str, Any]:
        return {"model": self.title, "images": self._num_images}


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
        visual_prompt: draws the crops.
        model: name in open_clip, "hf-hub:...", or "local-dir:..." for a machine without internet; SigLIP models also need
            the package transformers.
        pretrained: name of the weights, or a file; "random" for tests.
        templates, batch_size: see `ClipClassifier`.
        device: "auto", "cpu", "cuda", ...

    Raises:
        ConfigError: no class list, a value out of its range, no such model, or the package is missing.
        ClassifierError: the weights cannot be loaded.
    """
    if labels is None:
        raise ConfigError("classifier 'clip' needs a class list; free naming needs 'vlm'")
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
        # "longest" pads to a square with black instead of cropping.
        built, _, preprocess = open_clip.create_model_and_transforms(model, weights, image_resize_mode="longest")
        tokenizer = open_clip.get_tokenizer(model)
        built = built.eval().to(_device(device))
    except (RuntimeError, OSError, ValueError, ImportError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ClassifierError(
            f"classifier 'clip': {model} with weights '{pretrained}' cannot be loaded ({reason})"
        ) from error
    return ClipClassifier(built, preprocess, tokenizer, labels, templates, batch_size, f"{model} {pretrained}")


def _device(name: str) -> torch.device:
    found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return torch.device(found if name == "auto" else name)


def _open(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGB")
