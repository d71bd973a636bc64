"""Videos of any length, window by window: window (one of them), merge (ids over all), video (a whole one)."""
