"""One module per `tools/benchmark.py` command: `add_arguments(parser)` and `run(arguments)`."""
