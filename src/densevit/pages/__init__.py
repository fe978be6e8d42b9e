"""HTML pages and SVG charts: one style, one escaper, and the parts that pages share."""
