"""Radiographs in DICOM: header, pixels, and what a viewer shows of them."""
