"""Bonds: the eleven steps against the usual way, planted mispricings, and the Treasury's curve."""
