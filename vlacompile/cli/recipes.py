"""`vlacompile recipes [NAME]`."""

from __future__ import annotations

from vlacompile.cli.listing import add_name, show
from vlacompile.cli.terminal import Terminal

SUMMARY = "list the recipes (build options), or print one"
DESCRIPTION = "List the recipes (build options: precision, loops, tolerances), or print one\nwith every value."
EPILOG = """examples:
  vlacompile recipes
  vlacompile recipes libero-goal
  vlacompile recipes ./my-recipe.toml

next: `vlacompile build SOURCE --recipe NAME -o OUT.vlab`"""


def add_arguments(parser) -> None:
    add_name(parser, "recipe")


def run(args, terminal: Terminal) -> None:
    from vlacompile.recipe.recipe import load_recipe

    show("recipes", load_recipe, args.name, terminal)
