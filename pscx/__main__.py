"""``python -m pscx`` is ``pscx``."""

from __future__ import annotations

from pscx.cli.main import run

if __name__ == "__main__":
    run()
