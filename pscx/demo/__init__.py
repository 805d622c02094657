"""``pscx demo``: a local web page that compresses photographs and decodes streams step by step."""
