"""`python -m qwen3_vl_client`: the command line without its installed script."""

from .command_line.cli import main

main()
