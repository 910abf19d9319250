"""One IPv4 address that moves between machines that balance: whoever is elected has it, and tells the network so."""
