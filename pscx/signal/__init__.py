"""Signals, what is measured of them, and the noise that samples are drawn with."""
