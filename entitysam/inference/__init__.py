"""A video in, entities out: the segmenter (offline and online), the panoptic merge, the logit store."""
