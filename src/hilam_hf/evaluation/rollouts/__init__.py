"""Rollouts of policies in simulators, with success rates, videos and a record of how they came about."""
