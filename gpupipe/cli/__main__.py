"""`python -m gpupipe.cli`: the same as the command `gpupipe`."""

import sys

from gpupipe.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
