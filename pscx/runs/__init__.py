"""How a configuration becomes a run of Lightning: ``fit``, ``validate``, ``test`` and ``predict``."""
