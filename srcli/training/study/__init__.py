"""Studies: variants of a network trained alike, and a table beside their paper's."""
