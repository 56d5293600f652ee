"""From a picture to a larger picture, in tiles, on any device."""
