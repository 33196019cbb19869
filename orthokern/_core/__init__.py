"""The mechanism that every family shares: arrays, dispatch, derivatives, checks, loops, random bits."""
