"""tandem-ha on a real OpenStack: the demonstration, the drills and the benchmark, on the minicloud."""
