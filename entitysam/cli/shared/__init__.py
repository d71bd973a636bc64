"""What several commands share: options, models, progress, result folders."""
