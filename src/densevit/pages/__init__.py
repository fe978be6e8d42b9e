"""HTML pages: one style, one escaper, and charts as SVG."""
