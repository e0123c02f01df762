"""python -m rsir.cli."""

from rsir.cli import main

main()
