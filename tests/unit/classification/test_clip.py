"""The offline classifier with a tiny model of open_clip and random weights."""

import io
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from entitysam.classification.classifier import ClassifierError
from entitysam.classification.labels import parse_labels
from entitysam.classification.visual_prompts import VisualPrompt
from entitysam.registry import CLASSIFIERS, ConfigError, build

open_clip = pytest.importorskip("open_clip")
LABELS = parse_labels("person, dog, traffic light")
PROMPT = VisualPrompt(min_side=32)


@pytest.fixture(scope="module", autouse=True)
def tiny(tmp_path_factory):
    """A model of a few thousand weights (and a table of tokens) under the name "tiny-clip"."""
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1}
    path = tmp_path_factory.mktemp("clip") / "tiny-clip.json"
    path.write_text(json.dumps({"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(path)


def clip(**options):
    torch.manual_seed(0)
    node = {"name": "clip", "model": "tiny-clip", "pretrained": "random", "device": "cpu", **options}
    return build(CLASSIFIERS, node, "classifier", labels=LABELS, visual_prompt=PROMPT)


def crop_images(count=7):
    rng = np.random.default_rng(0)
    mask = np.zeros((20, 40), bool)
    mask[4:16, 6:30] = True
    return [PROMPT.encode(rng.integers(0, 255, (20, 40, 3), dtype=np.uint8), mask) for _ in range(count)]


def test_the_class_of_the_nearest_text_in_batches_of_any_size():
    classifier, shown, done = clip(batch_size=3), crop_images(), []
    answers = classifier.classify(shown, done.append)
    assert done == [3, 3, 1]
    model, tokenizer = classifier.model, open_clip.get_tokenizer("tiny-clip")
    with torch.no_grad():
        for image, answer in zip(shown, answers):  # one by one, text by text
            image = classifier.preprocess(Image.open(io.BytesIO(image)))[None]
            seen = F.normalize(model.encode_image(image)[0], dim=0)
            likeness = []
            for label in LABELS:
                texts = [
                    F.normalize(model.encode_text(tokenizer([sentence.replace("{}", label.name)]))[0], dim=0)
                    for sentence in ("a photo of a {}.", "a photo of the {}, cut out, on a black background.",
                                     "a cropped photo of a {}.", "a close-up photo of {}.", "{} in a scene.")
                ]  # fmt: skip
                likeness.append(seen @ F.normalize(sum(texts) / 5, dim=0))
            probability = (model.logit_scale.exp() * torch.stack(likeness)).softmax(0)
            assert answer.index == int(probability.argmax())
            assert answer.name == LABELS[answer.index].name
            assert answer.confidence == pytest.approx(float(probability.max()), abs=1e-5)
    assert classifier.statistics() == {"model": "tiny-clip random", "images": 7}
    assert [a.index for a in clip(batch_size=50).classify(shown)] == [a.index for a in answers]


def test_the_answer_is_the_most_similar_class_feature():
    classifier, shown = clip(), crop_images(3)
    with torch.no_grad():
        images = torch.stack([classifier.preprocess(Image.open(io.BytesIO(image))) for image in shown])
        seen = F.normalize(classifier.model.encode_image(images), dim=-1)
    classifier.class_features = seen[[2, 0, 1]]
    assert [answer.index for answer in classifier.classify(shown)] == [1, 2, 0]


def test_wide_images_are_padded_not_cropped():
    classifier = clip()
    wide = np.zeros((10, 60, 3), np.uint8)
    wide[:, :6] = (0, 255, 0)
    tensor = classifier.preprocess(Image.fromarray(wide))
    assert tensor.shape == (3, 32, 32)
    assert tensor[1, 14:18, 0].min() > tensor[1, 14:18, 16].max() + 1  # the green end is there


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": "ViT-Z"}, ConfigError, "open_clip has no model 'ViT-Z'"),
        ({"templates": ["a photo"]}, ConfigError, "every template needs a {}"),
        ({"batch_size": 0}, ConfigError, "batch_size must be 1 or more"),
        ({"pretrained": "/no/such/file.pt"}, ClassifierError, "cannot be loaded"),
    ],
)
def test_invalid_settings(options, error, message):
    with pytest.raises(error, match=message):
        clip(**options)


def test_free_naming_needs_another_classifier():
    with pytest.raises(ConfigError, match="needs a class list"):
        build(CLASSIFIERS, {"name": "clip"}, "classifier", labels=None, visual_prompt=PROMPT)
