"""`python -m model COMMAND`: trains, evaluates and uses the network from the command line."""

from __future__ import annotations

from model.cli.main import main

if __name__ == "__main__":
    main()
