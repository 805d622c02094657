"""How network calls are made: micro-batches, processes, several images at once, and with what arithmetic."""
