"""Agent: one symbol, a market that is a kernel, and a policy that learns to trade in it."""
