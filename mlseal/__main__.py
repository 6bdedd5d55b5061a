"""``python -m mlseal``: the same program as the ``mlseal`` script, for hosts where the script is not on PATH."""

from __future__ import annotations

from mlseal.cli import main

if __name__ == "__main__":
    main(prog_name="mlseal")
