"""Runs the command as `python -m hilam_hf.cli`."""

from . import main

if __name__ == "__main__":
    main()
