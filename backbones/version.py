"""The version of the whole distribution, in one place."""

VERSION = "0.1.0"
