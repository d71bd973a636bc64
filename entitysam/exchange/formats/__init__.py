"""One module per family of formats: `write(video, out)` and `read(path) -> video`."""
