"""SAM 2.1 with prompts: points, boxes and masks on any frame, followed through the video (Ravi et al., 2024)."""
