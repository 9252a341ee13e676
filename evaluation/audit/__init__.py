"""The audit: do maps say what the network does, and where findings are."""
