"""`python -m gpupipe`, which is the console command `gpupipe`."""

from __future__ import annotations

import sys

from gpupipe.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
