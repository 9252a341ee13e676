"""Tables of films: columns, labels, splits, selection, and the files that they name."""
