"""Tables between our tensor names and those of published checkpoints, one file per model."""
