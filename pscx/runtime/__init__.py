"""Shared services: files, folders of weights, optional libraries, progress, messages of other libraries."""
