"""Data sets too large for one process: shards, and the engines that work on them."""
