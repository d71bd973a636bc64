"""`python -m entitysam` is the command `entitysam`."""

from entitysam.cli import main

if __name__ == "__main__":
    main()
