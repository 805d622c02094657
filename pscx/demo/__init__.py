"""``pscx demo``: a page on this machine that compresses photographs and decodes streams while one looks on."""
