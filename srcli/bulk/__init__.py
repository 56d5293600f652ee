"""Many pictures on many machines: Ray Data moves them, the engine is the same."""
