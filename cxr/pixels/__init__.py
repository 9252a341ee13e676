"""Grey values: declared depths, rules, limits, and what makes a picture doubtful."""
