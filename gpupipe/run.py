"""`python -m gpupipe.run --sectors all`, which is `gpupipe run --sectors all`."""

from __future__ import annotations

import sys

from gpupipe.cli.run import main

if __name__ == "__main__":
    sys.exit(main())
