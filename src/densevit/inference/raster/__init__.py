"""Images larger than memory, streamed window by window."""
