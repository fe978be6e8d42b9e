"""From a photo to typed results."""
