"""`python -m qwen3_vl_client`: the command line without its installed script."""

from .cli import main

main()
