"""TIFF files: `page` says what a page holds, `read` reads it, `write` writes one."""
