"""What a template may hold, and what its parts cost: checked and written into its syntax tree.

`put` refuses statements, filters and tests that no template of prompts uses, and then puts a price
on those that let a small template do much: loops, slices, searches, lists in loops. A price is one
more filter around an expression; `promptsource_sandbox` has their code, and no template can spell
their names.
"""

from jinja2 import nodes, visitor

from optiml_jax.bench.sources.promptsource_work import ITEM_COST, StoppedError

STATEMENTS = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.Assign, nodes.If, nodes.For),
    *(nodes.Const, nodes.Name, nodes.NSRef, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair),
    *(nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Filter, nodes.Test, nodes.Call),
    *(nodes.Keyword, nodes.CondExpr, nodes.Compare, nodes.Operand, nodes.Concat),
    *(nodes.BinExpr, nodes.UnaryExpr),
)
FILTERS = (
    *("abs", "capitalize", "choice", "count", "d", "default", "dictsort", "first", "float"),
    *("format", "highlight", "int", "items", "join", "last", "length", "list", "lower", "map"),
    *("max", "min", "most_frequent", "random", "reject", "rejectattr", "replace", "reverse"),
    *("round", "select", "selectattr", "sort", "string", "sum", "title", "trim", "truncate"),
    *("unique", "upper", "wordcount"),
)
TESTS = (
    *("defined", "undefined", "none", "true", "false", "boolean", "integer", "float", "number"),
    *("string", "mapping", "sequence", "iterable", "odd", "even", "divisibleby", "lower", "upper"),
    *("in", "==", "eq", "equalto", "!=", "ne", ">", "gt", "greaterthan", "ge", ">=", "<", "lt"),
    *("lessthan", "<=", "le"),
)
LOOPED, WEIGHED, CHOSEN = " looped", " weighed", " chosen"
"""The filters that are prices: of a loop, of a value, and of a choice by the row's label."""


def put(tree: nodes.Template) -> None:
    """Checks a tree and puts its prices in, in place.

    Raises:
        StoppedError: it holds what is not let in.
    """
    for node in tree.find_all(nodes.Node):
        _check_node(node)
    _Prices().visit(tree)


def _check_node(node: nodes.Node) -> None:
    if not isinstance(node, STATEMENTS):
        raise StoppedError(
            f"has the statement '{type(node).__name__}', which is not let in", node.lineno
        )
    # Jinja's name for the template itself, which as text is the name of a class.
    if isinstance(node, nodes.Name) and node.name == "self":
        raise StoppedError("uses the name 'self', which is not let in", node.lineno)
    if isinstance(node, nodes.Getattr) and node.attr.startswith("__"):
        raise StoppedError(f"reaches for '{node.attr}'", node.lineno)
    for kind, known in ((nodes.Filter, FILTERS), (nodes.Test, TESTS)):
        name = getattr(node, "name", "")
        if isinstance(node, kind) and name not in known:
            what = kind.__name__.lower()
            names = ", ".join(known)
            raise StoppedError(f"has the {what} '{name}'; known are {names}", node.lineno)


class _Prices(visitor.NodeTransformer):
    """Puts a price on loops, literals and comparisons."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        if node.recursive:
            raise StoppedError("has a recursive loop", node.lineno)
        cost = ITEM_COST * sum(1 for _ in node.find_all(nodes.Node))
        self.generic_visit(node)
        node.iter = _call(node.iter, LOOPED, nodes.Const(cost))
        return node

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        # What is written out in the template is as small as the template.
        if all(isinstance(item, nodes.Const) for item in node.items):
            return node
        return _call(node, WEIGHED)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return _call(node, WEIGHED) if node.ctx == "load" else node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        if all(isinstance(pair.value, nodes.Const) for pair in node.items):
            return node
        return _call(node, WEIGHED)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        node.nodes = [_call(one, WEIGHED) for one in node.nodes]
        return _call(node, WEIGHED)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        left, priced = node.expr, False
        for operand in node.ops:
            # A literal ends a comparison early, but a search looks at all there is.
            is_search = operand.op in ("in", "notin")
            if is_search or not _is_literal(left, operand.expr):
                left, operand.expr, priced = operand.expr, _call(operand.expr, WEIGHED), True
            else:
                left = operand.expr
        if priced and not isinstance(node.expr, nodes.Const):
            node.expr = _call(node.expr, WEIGHED)
        return node

    def visit_Test(self, node: nodes.Test) -> nodes.Node:
        self.generic_visit(node)
        if node.args:
            node.node = _call(node.node, WEIGHED)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        is_choices = isinstance(node.node, nodes.List) or (
            isinstance(node.node, nodes.Name) and node.node.name == "answer_choices"
        )
        by_label = not isinstance(node.arg, nodes.Const | nodes.Slice | nodes.Neg)
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            return _call(node, WEIGHED)
        return _call(node.node, CHOSEN, node.arg) if is_choices and by_label else node


def _is_literal(*sides: nodes.Expr) -> bool:
    return any(isinstance(side, nodes.Const) for side in sides)


def _call(node: nodes.Node, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)
