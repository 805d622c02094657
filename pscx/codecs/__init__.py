"""Families of zero-shot codecs of signals."""
