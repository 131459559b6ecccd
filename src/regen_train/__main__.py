"""``python -m regen_train``."""

from regen_train.cli import main

if __name__ == "__main__":
    main()
