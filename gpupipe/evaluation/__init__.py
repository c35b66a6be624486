"""Pure measures: losses, calibration, block bootstrap, multiple testing, leaderboard."""
