//! One walk over a parsed text: finds names, refuses what does not exist, and writes the text anew with checked comparisons.
//!
//! The walk recurses over the syntax tree; its depth is bounded because the length of one expression and the number of
//! statements are, besides the parser's own bound on nesting.

use std::ops::Range;

use minijinja::machinery::ast::{BinOpKind, CallArg, Expr, Stmt, UnaryOpKind};
use minijinja::machinery::{Span, parse, parse_expr};
use minijinja::syntax::SyntaxConfig;

use super::filters::{FILTERS, TESTS};
use super::help::{filter_for, syntax_error};
use super::rewrite;
use super::{ExprError, NameUse};
use crate::diagnostic::{codes, did_you_mean};

/// Longest expression, and longest `{{ … }}` or `{% … %}` of a template, in bytes.
const EXPRESSION_BYTES_MAX: usize = 2_000;
/// Deepest nesting of an expression.
const DEPTH_MAX: usize = 100;
/// Most statements of a template.
const STATEMENTS_MAX: usize = 500;

/// What a walk gives.
pub(super) struct Walked {
    pub(super) rewritten: String,
    pub(super) names: Vec<NameUse>,
}

pub(super) fn expression(text: &str) -> Result<Walked, ExprError> {
    if text.trim().is_empty() {
        return Err(ExprError::new("an expression is missing", 0..text.len()).help("for an empty text write `\"''\"`"));
    }
    if text.len() > EXPRESSION_BYTES_MAX {
        let message = format!("an expression of {} bytes; {EXPRESSION_BYTES_MAX} is the most", text.len());
        return Err(ExprError::new(message, 0..text.len()).help("split it over several `value` nodes"));
    }
    let parsed = parse_expr(text).map_err(|error| syntax_error(&error, text))?;
    let mut walk = Walk { text, bound: Vec::new(), names: Vec::new(), problem: None, depth: 0 };
    let rewritten = walk.expr(&parsed);
    walk.finish(rewritten)
}

/// How templates are written: lines that hold nothing but a statement leave no trace.
pub(super) fn syntax() -> SyntaxConfig {
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build();
    syntax.expect("BUG: the default delimiters")
}

pub(super) fn template(text: &str) -> Result<Walked, ExprError> {
    let mut statements = 0;
    for (start, open) in text.match_indices(['{']).filter(|(at, _)| text[at + 1..].starts_with(['{', '%'])) {
        statements += usize::from(text[start + open.len()..].starts_with('%'));
        let close = if text[start + 1..].starts_with('%') { "%}" } else { "}}" };
        let length = text[start..].find(close).unwrap_or(text.len() - start);
        if length > EXPRESSION_BYTES_MAX && !text[start..].starts_with("{% raw") {
            let message = format!("an expression of {length} bytes; {EXPRESSION_BYTES_MAX} is the most");
            return Err(ExprError::new(message, start..start + 2));
        }
    }
    if statements > STATEMENTS_MAX {
        let message = format!("{statements} statements in one template; {STATEMENTS_MAX} is the most");
        return Err(ExprError::new(message, 0..0).help("split it over several nodes"));
    }
    let parsed = parse(text, "text", syntax()).map_err(|error| syntax_error(&error, text))?;
    let mut walk = Walk { text, bound: Vec::new(), names: Vec::new(), problem: None, depth: 0 };
    let rewritten = walk.stmt(&parsed);
    walk.finish(rewritten)
}

struct Walk<'s> {
    text: &'s str,
    /// Names that statements bind, innermost last.
    bound: Vec<String>,
    names: Vec<NameUse>,
    problem: Option<ExprError>,
    depth: usize,
}

impl Walk<'_> {
    fn finish(self, rewritten: String) -> Result<Walked, ExprError> {
        match self.problem {
            Some(problem) => Err(problem),
            None => Ok(Walked { rewritten, names: self.names }),
        }
    }

    fn refuse(&mut self, problem: ExprError) {
        self.problem.get_or_insert(problem);
    }

    fn range(&self, span: Span) -> Range<usize> {
        let (start, end) = (span.start_offset as usize, span.end_offset as usize);
        start.min(self.text.len())..end.min(self.text.len())
    }

    fn body(&mut self, body: &[Stmt]) -> String {
        body.iter().map(|stmt| self.stmt(stmt)).collect()
    }

    fn scoped(&mut self, body: &[Stmt]) -> String {
        let depth = self.bound.len();
        let text = self.body(body);
        self.bound.truncate(depth);
        text
    }

    fn stmt(&mut self, stmt: &Stmt) -> String {
        match stmt {
            Stmt::Template(template) => self.body(&template.children),
            Stmt::EmitRaw(raw) => rewrite::raw(raw.raw),
            Stmt::EmitExpr(emit) => format!("{{{{ {} }}}}", self.expr(&emit.expr)),
            Stmt::ForLoop(each) => self.for_loop(each),
            Stmt::IfCond(cond) => {
                let (test, yes) = (self.expr(&cond.expr), self.body(&cond.true_body));
                let no = self.body(&cond.false_body);
                format!("{{% if {test} %}}{yes}{{% else %}}{no}{{% endif %}}")
            }
            Stmt::WithBlock(with) => {
                let depth = self.bound.len();
                let values: Vec<String> = with.assignments.iter().map(|(_, value)| self.expr(value)).collect();
                let pairs = with.assignments.iter().zip(values);
                let pairs: Vec<String> =
                    pairs.map(|((target, _), value)| format!("{} = {value}", self.target(target))).collect();
                let body = self.body(&with.body);
                self.bound.truncate(depth);
                format!("{{% with {} %}}{body}{{% endwith %}}", pairs.join(", "))
            }
            Stmt::Set(set) => {
                let value = self.expr(&set.expr);
                format!("{{% set {} = {value} %}}", self.target(&set.target))
            }
            Stmt::SetBlock(set) => {
                let body = self.scoped(&set.body);
                let filter =
                    set.filter.as_ref().map(|filter| format!(" | {}", self.block_filter(filter))).unwrap_or_default();
                format!("{{% set {}{filter} %}}{body}{{% endset %}}", self.target(&set.target))
            }
            Stmt::FilterBlock(block) => {
                let (filter, body) = (self.block_filter(&block.filter), self.scoped(&block.body));
                format!("{{% filter {filter} %}}{body}{{% endfilter %}}")
            }
            Stmt::Continue(_) => "{% continue %}".to_owned(),
            Stmt::Break(_) => "{% break %}".to_owned(),
            Stmt::AutoEscape(block) => self.unsupported("autoescape", block.span()),
            Stmt::Do(call) => self.unsupported("do", call.span()),
        }
    }

    fn unsupported(&mut self, word: &str, span: Span) -> String {
        let range = self.range(span);
        self.refuse(ExprError::new(format!("templates have no `{word}`"), range));
        String::new()
    }

    fn for_loop(&mut self, each: &minijinja::machinery::ast::ForLoop) -> String {
        let iter = self.expr(&each.iter);
        let depth = self.bound.len();
        let target = self.target(&each.target);
        let filter = each.filter_expr.as_ref().map(|filter| self.loop_filter(filter)).unwrap_or_default();
        self.bound.push("loop".to_owned());
        let body = self.body(&each.body);
        self.bound.truncate(depth);
        let other = self.scoped(&each.else_body);
        let other = if each.else_body.is_empty() { String::new() } else { format!("{{% else %}}{other}") };
        if each.recursive {
            let range = self.range(each.iter.span());
            self.refuse(ExprError::new("`for` is not recursive here", range));
        }
        format!("{{% for {target} in {iter}{filter} %}}{body}{other}{{% endfor %}}")
    }

    fn loop_filter(&mut self, filter: &Expr) -> String {
        let before = self.names.len();
        let text = self.expr(filter);
        let outer_loop = self.bound.iter().any(|name| name == "loop");
        if let Some(name) = self.names[before..].iter().find(|name| *name.name == *"loop" && !outer_loop) {
            let problem = ExprError::new("`loop` is not known yet in the `if` of a `for`", name.range.clone());
            self.refuse(problem.help("put an `{% if %}` inside the loop"));
        }
        format!(" if {text}")
    }

    /// A name or names that a statement binds.
    fn target(&mut self, target: &Expr) -> String {
        match target {
            Expr::Var(name) => {
                self.bound.push(name.id.to_owned());
                name.id.to_owned()
            }
            Expr::Tuple(names) => names.items.iter().map(|name| self.target(name)).collect::<Vec<_>>().join(", "),
            Expr::List(names) => names.items.iter().map(|name| self.target(name)).collect::<Vec<_>>().join(", "),
            other => {
                let range = self.range(other.span());
                self.refuse(ExprError::new("only names can be set", range));
                String::new()
            }
        }
    }

    /// The filter of a block, whose input is the block's text.
    fn block_filter(&mut self, filter: &Expr) -> String {
        let Expr::Filter(filter) = filter else { return String::new() };
        self.known_filter(filter.name, filter.span());
        let own = format!("{}({})", filter.name, self.args(&filter.args));
        match &filter.expr {
            Some(inner @ Expr::Filter(_)) => format!("{} | {own}", self.block_filter(inner)),
            _ => own,
        }
    }

    fn known_filter(&mut self, name: &str, span: Span) {
        if !FILTERS.contains(&name) {
            let range = self.range(span);
            let range = self.text[range.clone()]
                .rfind(name)
                .map_or(range.clone(), |at| range.start + at..range.start + at + name.len());
            self.unknown("filter", name, range, FILTERS);
        }
    }

    fn unknown(&mut self, what: &str, name: &str, range: Range<usize>, known: &[&'static str]) {
        let mut problem = ExprError::new(format!("no {what} is called `{name}`"), range);
        problem.code = codes::UNKNOWN_FUNCTION;
        let near = did_you_mean(name, known.iter().copied()).or_else(|| filter_for(name));
        problem.help.push(match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("{what}s: {}", known.join(", ")),
        });
        self.refuse(problem);
    }

    fn args(&mut self, args: &[CallArg]) -> String {
        let one = |walk: &mut Self, arg: &CallArg| match arg {
            CallArg::Pos(value) => walk.expr(value),
            CallArg::Kwarg(name, value) => format!("{name}={}", walk.expr(value)),
            CallArg::PosSplat(value) => format!("*{}", walk.expr(value)),
            CallArg::KwargSplat(value) => format!("**{}", walk.expr(value)),
        };
        args.iter().map(|arg| one(self, arg)).collect::<Vec<_>>().join(", ")
    }

    fn list(&mut self, items: &[Expr]) -> String {
        items.iter().map(|item| self.expr(item)).collect::<Vec<_>>().join(", ")
    }

    fn optional(&mut self, part: &Option<Expr>) -> String {
        part.as_ref().map(|part| self.expr(part)).unwrap_or_default()
    }

    fn expr(&mut self, expr: &Expr) -> String {
        self.depth += 1;
        let text = if self.depth > DEPTH_MAX {
            let range = self.range(expr.span());
            self.refuse(ExprError::new("the expression nests too deeply", range).help("split it over several nodes"));
            String::new()
        } else {
            self.one(expr)
        };
        self.depth -= 1;
        text
    }

    fn one(&mut self, expr: &Expr) -> String {
        match expr {
            Expr::Var(name) => self.name(name.id, Vec::new(), false, expr.span()),
            Expr::GetAttr(_) => self.attribute(expr),
            Expr::Const(constant) => self.constant(&constant.value, expr.span()),
            Expr::Slice(s) => {
                let (of, from, to, step) =
                    (self.expr(&s.expr), self.optional(&s.start), self.optional(&s.stop), self.optional(&s.step));
                let step = if step.is_empty() { step } else { format!(":{step}") };
                format!("{of}[{from}:{to}{step}]")
            }
            Expr::UnaryOp(op) => match op.op {
                UnaryOpKind::Not => format!("(not {})", self.expr(&op.expr)),
                UnaryOpKind::Neg => format!("(-{})", self.expr(&op.expr)),
            },
            Expr::BinOp(_) => self.binary(expr),
            Expr::Compare(chain) => {
                let mut left = self.expr(&chain.expr);
                let mut parts = Vec::new();
                for step in &chain.ops {
                    let right = self.expr(&step.expr);
                    parts.push(rewrite::comparison(step.op, &left, &right));
                    left = right;
                }
                format!("({})", parts.join(" and "))
            }
            Expr::IfExpr(choice) => {
                let (test, yes) = (self.expr(&choice.test_expr), self.expr(&choice.true_expr));
                match &choice.false_expr {
                    Some(no) => format!("({yes} if {test} else {})", self.expr(no)),
                    None => format!("({yes} if {test})"),
                }
            }
            Expr::Filter(filter) => {
                self.known_filter(filter.name, filter.span());
                let of = match &filter.expr {
                    Some(Expr::Var(name)) if filter.name == "default" => {
                        let span = filter.expr.as_ref().map_or(filter.span(), Expr::span);
                        self.name(name.id, Vec::new(), true, span)
                    }
                    of => self.optional(of),
                };
                format!("({of}|{}({}))", filter.name, self.args(&filter.args))
            }
            Expr::Test(test) => {
                if !TESTS.contains(&test.name) {
                    let range = self.range(test.span());
                    self.unknown("test", test.name, range, TESTS);
                }
                let of = self.expr(&test.expr);
                format!("({of} is {}({}))", test.name, self.args(&test.args))
            }
            Expr::GetItem(item) => {
                let (of, key) = (self.expr(&item.expr), self.expr(&item.subscript_expr));
                format!("{of}[{key}]")
            }
            Expr::Call(call) => self.call(call, expr.span()),
            Expr::List(list) => format!("[{}]", self.list(&list.items)),
            Expr::Tuple(tuple) => format!("({},)", self.list(&tuple.items)),
            Expr::Map(map) => {
                let pairs = map.keys.iter().zip(&map.values);
                let pairs: Vec<String> =
                    pairs.map(|(key, value)| format!("{}: {}", self.expr(key), self.expr(value))).collect();
                format!("{{{}}}", pairs.join(", "))
            }
        }
    }

    fn constant(&mut self, value: &minijinja::Value, span: Span) -> String {
        // Digits beyond every float are read as infinity, which has no text to be read again from.
        if value.is_number() && f64::try_from(value.clone()).is_ok_and(f64::is_infinite) {
            let range = self.range(span);
            self.refuse(ExprError::new("the number is too large", range).help("`calc` takes numbers of any size"));
        }
        rewrite::constant(value)
    }

    /// A chain such as `a + b + c` leans to the left: it is walked in a loop, so that its length costs no depth.
    fn binary(&mut self, expr: &Expr) -> String {
        let mut chain = Vec::new();
        let mut at = expr;
        while let Expr::BinOp(op) = at {
            self.refuse_filtered_sum(op.op, &op.right);
            chain.push((op.op, &op.right));
            at = &op.left;
        }
        let mut text = self.expr(at);
        for (op, right) in chain.into_iter().rev() {
            let right = self.expr(right);
            text = rewrite::binary(op, &text, &right);
        }
        text
    }

    fn refuse_filtered_sum(&mut self, op: BinOpKind, right: &Expr) {
        if matches!((op, right), (BinOpKind::Add, Expr::Filter(_))) {
            let start = leftmost(right).span().start_offset as usize;
            let parenthesized = self.text[..start.min(self.text.len())].trim_end().ends_with('(');
            if !parenthesized {
                let range = self.range(right.span());
                let problem = ExprError::new("the filter takes only the right side of `+`", range);
                self.refuse(problem.help("write `(a + b) | f` or `a + (b | f)`"));
            }
        }
    }

    fn call(&mut self, call: &minijinja::machinery::ast::Call, span: Span) -> String {
        match &call.expr {
            Expr::Var(name) if name.id == "range" => format!("range({})", self.args(&call.args)),
            Expr::Var(name) => {
                let range = self.range(call.expr.span());
                let message = match FILTERS.contains(&name.id) {
                    true => format!("`{}` is a filter, not a function", name.id),
                    false => format!("no function is called `{}`", name.id),
                };
                let mut problem = ExprError::new(message, range);
                problem.code = codes::UNKNOWN_FUNCTION;
                let filter = filter_for(name.id).unwrap_or("filter");
                self.refuse(problem.help(format!("write `x | {filter}`; `range` is the one function")));
                String::new()
            }
            method => {
                let range = self.range(span);
                let mut problem = ExprError::new("values have no methods", range);
                problem.code = codes::UNKNOWN_FUNCTION;
                let named = if let Expr::GetAttr(get) = method { filter_for(get.name) } else { None };
                self.refuse(problem.help(format!("filters do their work: `x | {}`", named.unwrap_or("upper"))));
                String::new()
            }
        }
    }

    /// A chain of attributes; those directly on a name are remembered with it.
    fn attribute(&mut self, expr: &Expr) -> String {
        let mut attributes = Vec::new();
        let mut at = expr;
        while let Expr::GetAttr(get) = at {
            attributes.push(get.name.to_owned());
            at = &get.expr;
        }
        attributes.reverse();
        let of = match at {
            Expr::Var(name) => self.name(name.id, attributes.clone(), false, at.span()),
            other => self.expr(other),
        };
        format!("{of}.{}", attributes.join("."))
    }

    fn name(&mut self, name: &str, attributes: Vec<String>, defaulted: bool, span: Span) -> String {
        if name == "null" {
            return "none".to_owned();
        }
        if !self.bound.iter().any(|bound| bound == name) {
            let range = self.range(span);
            self.names.push(NameUse { name: name.into(), attributes, defaulted, range, node: None });
        }
        name.to_owned()
    }
}

/// The expression that a chain of filters and look-ups begins with: spans of filters begin at their names.
fn leftmost<'e, 's>(expr: &'e Expr<'s>) -> &'e Expr<'s> {
    let mut at = expr;
    loop {
        at = match at {
            Expr::Filter(filter) => match &filter.expr {
                Some(inner) => inner,
                None => return at,
            },
            Expr::GetAttr(get) => &get.expr,
            Expr::GetItem(get) => &get.expr,
            Expr::Slice(slice) => &slice.expr,
            Expr::BinOp(op) => &op.left,
            Expr::Compare(chain) => &chain.expr,
            _ => return at,
        };
    }
}
