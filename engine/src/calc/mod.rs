//! Exact arithmetic: formulas over numbers of any size, as fractions of big integers.
//!
//! A formula is parsed once (`parse.rs`) and computed with fractions (`number.rs`). What it gives is a JSON number where that is
//! exactly the result, else a text of its digits, else (1/3) a text of 30 significant digits. Example: `{eggs} - 5` with
//! `eggs` = 48 is 43; `2^100` is the text `1267650600228229401496703205376`. The cost of every operation is bounded before it is
//! done: results over 100,000 digits are errors.

mod number;
mod parse;

use std::ops::Range;

use serde_json::Value;

use crate::expr::ExprError;
use crate::failure::StepError;
use number::Fraction;
use parse::{Comparison, Node, Operator};

/// A parsed formula.
#[derive(Clone, Debug)]
pub struct Formula {
    text: String,
    names: Vec<(String, Range<usize>)>,
    root: Node,
}

/// What a part of a formula gives.
enum Part {
    Number(Fraction),
    Truth(bool),
    /// A list without its nulls, by the name that people know it under.
    List(String, Vec<Value>),
}

impl Formula {
    /// Parses a formula.
    ///
    /// # Errors
    /// What is not understood, with its range.
    pub fn parse(text: &str) -> Result<Self, ExprError> {
        let (root, names) = parse::formula(text)?;
        Ok(Self { text: text.to_owned(), names, root })
    }

    /// The text as written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The ids that it mentions, each once, with the byte range of the first mention (braces included).
    pub fn names(&self) -> &[(String, Range<usize>)] {
        &self.names
    }

    /// Whether it gives yes or no.
    pub fn is_comparison(&self) -> bool {
        matches!(self.root, Node::Compare(..))
    }

    /// Computes it. `lookup` gives the value of an id.
    ///
    /// # Errors
    /// A terminal error with the code `calc` that names what cannot be computed.
    pub fn eval(&self, mut lookup: impl FnMut(&str) -> Option<Value>) -> Result<Value, StepError> {
        match eval(&self.root, &mut lookup)? {
            Part::Number(number) => Ok(number.to_value()),
            Part::Truth(truth) => Ok(Value::Bool(truth)),
            Part::List(..) => Err(problem("a list is no number: use sum, max, min, avg or count")),
        }
    }
}

fn problem(message: impl Into<String>) -> StepError {
    StepError::terminal("calc", message)
}

type Lookup<'l> = &'l mut dyn FnMut(&str) -> Option<Value>;

fn eval(node: &Node, lookup: Lookup) -> Result<Part, StepError> {
    Ok(match node {
        Node::Number(number) => Part::Number(number.clone()),
        Node::Name(name) => named(name, lookup(name))?,
        Node::Negate(inner) => Part::Number(number(inner, lookup)?.negated()),
        Node::Binary(first, rest) => {
            let mut total = number(first, lookup)?;
            for (operator, operand) in rest {
                let operand = number(operand, lookup)?;
                total = match operator {
                    Operator::Add => total.plus(&operand),
                    Operator::Subtract => total.plus(&operand.negated()),
                    Operator::Multiply => total.times(&operand),
                    Operator::Divide => total.over(&operand)?,
                }
                .checked()?;
            }
            Part::Number(total)
        }
        Node::Power(base, exponent) => {
            let (base, exponent) = (number(base, lookup)?, number(exponent, lookup)?);
            Part::Number(base.to_the(&exponent)?)
        }
        Node::Compare(left, operator, right) => {
            let order = number(left, lookup)?.compare(&number(right, lookup)?);
            Part::Truth(match operator {
                Comparison::More => order.is_gt(),
                Comparison::Less => order.is_lt(),
                Comparison::Equal => order.is_eq(),
                Comparison::MoreOrEqual => order.is_ge(),
                Comparison::LessOrEqual => order.is_le(),
            })
        }
        Node::If(condition, yes, no) => match eval(condition, lookup)? {
            Part::Truth(true) => eval(yes, lookup)?,
            Part::Truth(false) => eval(no, lookup)?,
            _ => return Err(problem("what stands after `if` must be yes or no: a comparison")),
        },
        Node::Call(function, arguments) => call(function, arguments, lookup)?,
    })
}

fn number(node: &Node, lookup: Lookup) -> Result<Fraction, StepError> {
    match eval(node, lookup)? {
        Part::Number(number) => Ok(number),
        Part::Truth(_) => Err(problem("yes or no is no number")),
        Part::List(..) => Err(problem("a list is no number: use sum, max, min, avg or count")),
    }
}

fn named(name: &str, value: Option<Value>) -> Result<Part, StepError> {
    match value {
        None => Err(problem(format!("`{name}` has no value"))),
        Some(Value::Null) => Err(problem(format!("`{name}` is unknown, so nothing can be computed with it"))),
        Some(Value::Bool(truth)) => Ok(Part::Truth(truth)),
        Some(Value::Array(mut items)) => {
            items.retain(|item| !item.is_null());
            Ok(Part::List(name.to_owned(), items))
        }
        Some(value) => read_number(name, &value).map(Part::Number),
    }
}

/// A JSON number, or a text that is one.
fn read_number(name: &str, value: &Value) -> Result<Fraction, StepError> {
    let number = match value {
        Value::Number(number) => Fraction::parse(&number.to_string()),
        Value::String(text) => Fraction::parse(&text.trim().replace(',', "")),
        _ => None,
    };
    number.ok_or_else(|| {
        let shown: String = value.to_string().chars().take(40).collect();
        problem(format!("`{name}` is {shown}, which is no number"))
    })
}

fn call(function: &str, arguments: &[Node], lookup: Lookup) -> Result<Part, StepError> {
    let mut numbers = Vec::new();
    for argument in arguments {
        match eval(argument, lookup)? {
            Part::Number(number) => numbers.push(number),
            Part::List(_, items) if function == "count" => numbers.extend(items.iter().map(|_| Fraction::from(0))),
            Part::List(name, items) => {
                for item in &items {
                    numbers.push(read_number(&name, item)?);
                }
            }
            Part::Truth(_) => return Err(problem(format!("`{function}` takes numbers, not yes or no"))),
        }
    }
    let count = Fraction::from(numbers.len() as i64);
    let sum = |numbers: &[Fraction]| numbers.iter().try_fold(Fraction::from(0), |total, n| total.plus(n).checked());
    if numbers.is_empty() && !["sum", "count"].contains(&function) {
        return Err(problem(format!("`{function}` of nothing")));
    }
    Ok(Part::Number(match function {
        "count" => count,
        "sum" => sum(&numbers)?,
        "avg" => sum(&numbers)?.over(&count)?,
        "max" => numbers.into_iter().max_by(Fraction::compare).expect("BUG: an empty list was refused"),
        _ => numbers.into_iter().min_by(Fraction::compare).expect("BUG: an empty list was refused"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn eval(text: &str) -> Result<Value, String> {
        let scope = json!({"a": 7, "b": "1,000", "l": [1, null, "2.5"], "n": null, "t": "many", "yes": true, "e": [], "words": ["x", "y"]});
        let formula = Formula::parse(text).map_err(|error| error.message.clone())?;
        formula.eval(|name| scope.get(name).cloned()).map_err(|error| error.message.clone())
    }

    #[test]
    fn computes_exactly() {
        let check = |text: &str, expected: Value| assert_eq!(eval(text), Ok(expected), "{text}");
        check("6 * 8 - 5", json!(43));
        check("0.1 + 0.2", json!(0.3));
        check("1 / 3", json!("0.333333333333333333333333333333"));
        check("2 / 3 * 3", json!(2));
        check("2 ^ 10", json!(1024));
        check("2 >= 2", json!(true));
        check("2 <= 1 + 0.5", json!(false));
        check("2^100", json!("1267650600228229401496703205376"));
        check("9007199254740993", json!(9_007_199_254_740_993_i64));
        check("18446744073709551614 + 1", json!(u64::MAX));
        check("18446744073709551615 + 1", json!("18446744073709551616"));
        check("-2 ^ 2", json!(-4));
        check("2 ^ -2", json!(0.25));
        check("2 ^ 3 ^ 2", json!(512));
        check("10 - 2 - 3", json!(5));
        check("(1 + 2) * {a}", json!(21));
        check("{b} + 1", json!(1001));
        check("sum({l}, 4) + count({l})", json!(9.5));
        check("max({l}) - min({l}, 0)", json!(2.5));
        check("avg({l})", json!(1.75));
        check("sum({e}) + count({e})", json!(0));
        check("count({words})", json!(2));
        check("{a} > 3", json!(true));
        check("if {a} = 7 then 1 else 2", json!(1));
        check("if {yes} then 1 else 2", json!(1));
        check("1,000 + 1", json!(1001));
        check("sum(1,000, 2)", json!(3));
        check("1 / 8", json!(0.125));
        check("0.1 ^ 30", json!("0.000000000000000000000000000001"));
    }

    #[test]
    fn refuses_with_a_reason() {
        let check = |text: &str, part: &str| {
            let error = eval(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        };
        check("1 / 0", "division by zero");
        check("{n} + 1", "`n` is unknown");
        check("{t} + 1", "no number");
        check("{x}", "`x` has no value");
        check("max({e})", "of nothing");
        check("{l} + 1", "a list is no number");
        check("2 ^ 0.5", "whole exponent");
        check("9^9^9^9", "digits");
        check("10 ^ 200000", "digits");
        check("0 ^ -1", "division by zero");
        check("six + 1", "six");
        check("", "formula");
        check("1 +", "number");
        check("{a} > 1 > 2", "`> 2`");
        check(&"(".repeat(100_000), "long");
        check(&"-".repeat(1_000), "deep");
    }
}
