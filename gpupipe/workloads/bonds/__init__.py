"""Bonds: quotes by date and a par curve, judged, as a Panel; their valuation; eleven steps of fair-value models."""
