"""Bonds: their valuation, and fair values of the market of a day."""
