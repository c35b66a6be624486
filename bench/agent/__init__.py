"""Training of the agent: our PPO with an LSTM against sb3-contrib's RecurrentPPO."""
