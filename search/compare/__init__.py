"""Variants of one study beside each other: searched, retrained with several seeds, measured, as tables."""
