//! tandem-ha: watches compute hosts, decides which are dead, fences them and evacuates their instances.
