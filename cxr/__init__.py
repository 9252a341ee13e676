"""What things are called and how they are stored: labels, films, masks, heat maps, files."""
