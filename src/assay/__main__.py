"""``python -m assay``: the same as the console command."""

from assay.cli import main

main()
