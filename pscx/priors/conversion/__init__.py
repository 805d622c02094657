"""Converters of checkpoints that others trained into folders that the prior ``ddpm`` loads; run one as a module."""
