"""Maps and effects that the audit compares."""
