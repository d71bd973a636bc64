"""Inference on videos: the segmenter (offline and online), the panoptic merge, mask logits on disk."""
