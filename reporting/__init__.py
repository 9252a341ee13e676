"""How results are shown: tables and figures made from the files of a results folder, nothing else."""
