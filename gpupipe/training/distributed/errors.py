"""What the user of a cluster can mend."""

from __future__ import annotations

from gpupipe.runtime.errors import UserError


class ClusterError(UserError):
    """A cluster cannot be used; the message says why and names the fix."""
