"""Web pages that need nothing but themselves: pictures compared, results with crops."""
