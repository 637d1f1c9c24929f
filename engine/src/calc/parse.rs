//! The grammar of formulas, read by recursive descent with a bound on nesting.
//!
//! ```text
//! formula = "if" cmp "then" sum "else" sum | cmp
//! cmp     = sum [(">" | "<" | "=" | ">=" | "<=") sum]
//! sum     = term {("+" | "-") term}
//! term    = unary {("*" | "/") unary}
//! unary   = ["-"] power
//! power   = atom ["^" unary]
//! atom    = number | "{" id "}" | "(" cmp ")" | function "(" sum {"," sum} ")"
//! ```

use std::ops::Range;

use super::number::Fraction;
use crate::expr::ExprError;

/// Longest formula in bytes.
const BYTES_MAX: usize = 4_000;
/// Deepest nesting.
const DEPTH_MAX: usize = 60;

const FUNCTIONS: [&str; 5] = ["sum", "max", "min", "avg", "count"];

#[derive(Clone, Debug)]
pub(super) enum Node {
    Number(Fraction),
    Name(String),
    Negate(Box<Node>),
    /// A first operand and further ones, from left to right.
    Binary(Box<Node>, Vec<(Operator, Node)>),
    Power(Box<Node>, Box<Node>),
    Compare(Box<Node>, Comparison, Box<Node>),
    If(Box<Node>, Box<Node>, Box<Node>),
    Call(String, Vec<Node>),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Comparison {
    More,
    Less,
    Equal,
    MoreOrEqual,
    LessOrEqual,
}

type Names = Vec<(String, Range<usize>)>;

pub(super) fn formula(text: &str) -> Result<(Node, Names), ExprError> {
    let mut parser = Parser { text, at: 0, depth: 0, calls: 0, names: Vec::new() };
    if text.len() > BYTES_MAX {
        return Err(parser.refuse(format!("the formula is too long ({} bytes; {BYTES_MAX} is the most)", text.len())));
    }
    let root = parser.whole()?;
    parser.space();
    if parser.at < text.len() {
        let rest: String = text[parser.at..].chars().take(20).collect();
        return Err(parser.refuse(format!("`{rest}` is not expected here in a formula")));
    }
    Ok((root, parser.names))
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
    /// Function calls around the place: there a comma separates.
    calls: usize,
    names: Names,
}

impl Parser<'_> {
    fn refuse(&self, message: impl Into<String>) -> ExprError {
        ExprError {
            code: crate::diagnostic::codes::BAD_FORMULA,
            message: message.into(),
            range: Some(self.at..self.text.len()),
            help: vec![
                "a formula has numbers, `{id}`, + - * / ^ ( ), sum max min avg count, > < = >= <=, if-then-else"
                    .to_owned(),
            ],
        }
    }

    fn space(&mut self) {
        self.at = self.text.len() - self.text[self.at..].trim_start().len();
    }

    fn peek(&mut self) -> Option<char> {
        self.space();
        self.text[self.at..].chars().next()
    }

    fn eat(&mut self, token: char) -> bool {
        let found = self.peek() == Some(token);
        self.at += if found { token.len_utf8() } else { 0 };
        found
    }

    fn word(&mut self) -> &str {
        self.space();
        let rest = &self.text[self.at..];
        &rest[..rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())]
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let found = self.word() == word;
        self.at += if found { word.len() } else { 0 };
        found
    }

    fn whole(&mut self) -> Result<Node, ExprError> {
        if !self.eat_word("if") {
            return self.comparison();
        }
        let condition = self.comparison()?;
        if !self.eat_word("then") {
            return Err(self.refuse("`then` is missing"));
        }
        let yes = self.sum()?;
        if !self.eat_word("else") {
            return Err(self.refuse("`else` is missing"));
        }
        Ok(Node::If(condition.into(), yes.into(), self.sum()?.into()))
    }

    fn comparison(&mut self) -> Result<Node, ExprError> {
        let left = self.sum()?;
        self.space();
        let comparisons = [
            (">=", Comparison::MoreOrEqual),
            ("<=", Comparison::LessOrEqual),
            (">", Comparison::More),
            ("<", Comparison::Less),
            ("=", Comparison::Equal),
        ];
        let rest = &self.text[self.at..];
        let Some((sign, comparison)) = comparisons.into_iter().find(|(sign, _)| rest.starts_with(sign)) else {
            return Ok(left);
        };
        self.at += sign.len();
        Ok(Node::Compare(left.into(), comparison, self.sum()?.into()))
    }

    fn chain(
        &mut self,
        operators: &[(char, Operator)],
        operand: fn(&mut Self) -> Result<Node, ExprError>,
    ) -> Result<Node, ExprError> {
        let first = operand(self)?;
        let mut rest = Vec::new();
        while let Some(found) = self.peek()
            && let Some((_, operator)) = operators.iter().find(|(token, _)| *token == found)
        {
            self.at += found.len_utf8();
            rest.push((*operator, operand(self)?));
        }
        Ok(if rest.is_empty() { first } else { Node::Binary(first.into(), rest) })
    }

    fn sum(&mut self) -> Result<Node, ExprError> {
        self.chain(&[('+', Operator::Add), ('-', Operator::Subtract)], Self::term)
    }

    fn term(&mut self) -> Result<Node, ExprError> {
        self.chain(&[('*', Operator::Multiply), ('/', Operator::Divide)], Self::unary)
    }

    fn unary(&mut self) -> Result<Node, ExprError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.refuse("the formula nests too deeply"));
        }
        let node = if self.eat('-') { Node::Negate(self.power()?.into()) } else { self.power()? };
        self.depth -= 1;
        Ok(node)
    }

    fn power(&mut self) -> Result<Node, ExprError> {
        let base = self.atom()?;
        if self.eat('^') { Ok(Node::Power(base.into(), self.unary()?.into())) } else { Ok(base) }
    }

    fn atom(&mut self) -> Result<Node, ExprError> {
        match self.peek() {
            Some('{') => self.name(),
            Some('(') => {
                self.at += 1;
                let inner = self.comparison()?;
                if self.eat(')') { Ok(inner) } else { Err(self.refuse("a `)` is missing")) }
            }
            Some(digit) if digit.is_ascii_digit() || digit == '.' => self.number(),
            Some(letter) if letter.is_alphabetic() => self.call(),
            Some('-') => Err(self.refuse("the formula nests too deeply or has two signs in a row")),
            Some(other) => Err(self.refuse(format!("`{other}` stands where a number is expected"))),
            None => Err(self.refuse("the formula ends where a number is expected")),
        }
    }

    fn name(&mut self) -> Result<Node, ExprError> {
        let start = self.at;
        let Some(length) = self.text[start..].find('}') else { return Err(self.refuse("a `}` is missing")) };
        let name = self.text[start + 1..start + length].trim().to_owned();
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_name {
            return Err(self.refuse(format!("`{{{name}}}` is no name")));
        }
        self.at = start + length + 1;
        if !self.names.iter().any(|(known, _)| *known == name) {
            self.names.push((name.clone(), start..self.at));
        }
        Ok(Node::Name(name))
    }

    /// Digits, with commas between groups of three outside of calls.
    fn number(&mut self) -> Result<Node, ExprError> {
        let rest = &self.text.as_bytes()[self.at..];
        let digits = |from: usize| rest[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let mut end = digits(0);
        while self.calls == 0
            && end > 0
            && end <= rest.len()
            && rest.get(end) == Some(&b',')
            && digits(end + 1) == 3
            && (1..=3).contains(&(end % 4))
        {
            end += 4;
        }
        if rest.get(end) == Some(&b'.') && digits(end + 1) > 0 {
            end += 1 + digits(end + 1);
        }
        let written = self.text[self.at..self.at + end].replace(',', "");
        let number = Fraction::parse(&written).ok_or_else(|| self.refuse("this is no number"))?;
        self.at += end;
        Ok(Node::Number(number))
    }

    fn call(&mut self) -> Result<Node, ExprError> {
        let function = self.word().to_owned();
        if !FUNCTIONS.contains(&function.as_str()) {
            let mut problem = self.refuse(format!("`{function}` means nothing in a formula"));
            problem.range = Some(self.at..self.at + function.len());
            if !self.text[self.at + function.len()..].trim_start().starts_with('(') {
                problem.help.insert(0, format!("the value of `{function}` is written `{{{function}}}`"));
            }
            return Err(problem);
        }
        self.at += function.len();
        if !self.eat('(') {
            return Err(self.refuse(format!("`{function}` wants its numbers in parentheses")));
        }
        self.calls += 1;
        let mut arguments = vec![self.sum()?];
        while self.eat(',') {
            arguments.push(self.sum()?);
        }
        self.calls -= 1;
        if self.eat(')') { Ok(Node::Call(function, arguments)) } else { Err(self.refuse("a `)` is missing")) }
    }
}
