"""Hosts: each module joins one backtesting library to the memory."""
