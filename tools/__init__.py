"""Commands for those who work on Loopwright."""
