"""`python -m certmix_cli`."""

from .main import main

main()
