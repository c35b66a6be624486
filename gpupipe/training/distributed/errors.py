"""ClusterError: a problem of a cluster that the user can fix."""

from __future__ import annotations

from gpupipe.runtime.errors import UserError


class ClusterError(UserError):
    """A cluster cannot be used; the message names the reason and the fix."""
