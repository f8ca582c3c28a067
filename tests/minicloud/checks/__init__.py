"""Tests of the minicloud itself: run by `python3 -m minicloud.checks`."""
