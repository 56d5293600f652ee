"""Pictures: files, colour, exact resampling, degradations."""
