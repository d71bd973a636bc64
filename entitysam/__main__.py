"""`python -m entitysam` is the command `entitysam`."""

import sys

from entitysam.cli import main

if __name__ == "__main__":
    sys.exit(main())
