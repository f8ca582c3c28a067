"""A real OpenStack on one machine, whose hosts can be killed, hung and cut off."""
