"""`python -m certmix_cli`."""

from .main import program

program()
