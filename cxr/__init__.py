"""Labels, films, masks, heat maps, results: names and file formats. Imports no other folder."""

__version__ = "1.0.0"
