"""Which branch a function took: the same function with its outcomes replaced by their numbers.

Scripted experts choose by a cascade of conditions. Asking the cascade itself, instead of writing its conditions and
thresholds a second time, cannot disagree with the expert that is installed.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Branches:
    """A function's branches, numbered from 0 in the order of its source.

    Attributes:
        choose: Takes the function's arguments and returns the number of the branch that they lead to.
        count: Number of branches.
    """

    choose: Callable[..., int]
    count: int


def function_branches(function: Callable[..., Any], target: str | None = None) -> Branches:
    """Number the branches of a function; the function itself stays as it is.

    A branch is a `return`, or with `target` an assignment to the variable of that name, which then ends the function.

    Args:
        function: A Python function whose source is at hand, without decorators that change its arguments.
        target: Variable whose assignments are the branches.

    Returns:
        The function that chooses, and the number of branches.

    Raises:
        OSError: The function's source cannot be read.

    Example:
        >>> def sign(x):
        ...     if x < 0:
        ...         return "negative"
        ...     return "positive"
        >>> function_branches(sign).choose(3.0)
        1
    """
    module = ast.parse(textwrap.dedent(inspect.getsource(function)))
    definition = module.body[0]
    assert isinstance(definition, ast.FunctionDef)
    # Decorators (staticmethod) have no sense outside the class, nor types where their imports are for checkers only.
    definition.decorator_list = []
    definition.returns = None
    for argument in ast.walk(definition.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    numbering = _Numbering(target)
    numbering.visit(definition)
    names = dict(function.__globals__)
    exec(compile(ast.fix_missing_locations(module), inspect.getfile(function), "exec"), names)
    return Branches(names[definition.name], numbering.count)


class _Numbering(ast.NodeTransformer):
    """Puts `return <number>` in the place of each branch."""

    def __init__(self, target: str | None) -> None:
        self._target = target
        self.count = 0

    def visit_Return(self, node: ast.Return) -> ast.AST:
        return node if self._target is not None else self._numbered(node)

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        names = [variable.id for variable in node.targets if isinstance(variable, ast.Name)]
        return self._numbered(node) if self._target is not None and self._target in names else node

    def _numbered(self, node: ast.stmt) -> ast.AST:
        number = ast.Return(ast.Constant(self.count))
        self.count += 1
        return ast.copy_location(number, node)
