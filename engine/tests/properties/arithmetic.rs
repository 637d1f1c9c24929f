//! Random formulas with an evaluation of their own, by fractions of machine integers.

use flowrun_engine::calc::Formula;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

/// A formula.
#[derive(Clone, Debug)]
pub(super) enum Arithmetic {
    Number(i64),
    Negative(Box<Arithmetic>),
    Binary(char, Box<Arithmetic>, Box<Arithmetic>),
    Call(&'static str, Vec<Arithmetic>),
    Power(Box<Arithmetic>, u32),
    Choice(char, Box<[Arithmetic; 4]>),
}

pub(super) fn arithmetic() -> impl Strategy<Value = Arithmetic> {
    use Arithmetic::*;
    let leaf = (0..60i64).prop_map(Number);
    leaf.prop_recursive(4, 24, 4, |inner| {
        let pair = (inner.clone(), inner.clone());
        prop_oneof![
            4 => (select(&['+', '-', '*', '/'][..]), pair).prop_map(|(sign, (a, b))| Binary(sign, a.into(), b.into())),
            1 => inner.clone().prop_map(|a| Negative(a.into())),
            1 => (inner.clone(), 0..4u32).prop_map(|(a, times)| Power(a.into(), times)),
            1 => (select(&["sum", "max", "min", "avg", "count"][..]), prop::collection::vec(inner.clone(), 1..4)).prop_map(|(name, of)| Call(name, of)),
            1 => (select(&['<', '>', '='][..]), [inner.clone(), inner.clone(), inner.clone(), inner]).prop_map(|(sign, of)| Choice(sign, of.into())),
        ]
    })
}

/// A fraction with a positive denominator, not reduced.
type Fraction = (i128, i128);

impl Arithmetic {
    /// Computes it both ways.
    pub(super) fn check(&self) {
        let (text, names) = self.text();
        let formula = Formula::parse(&text).unwrap_or_else(|error| panic!("`{text}`: {error}"));
        let found = formula.eval(|name| names.get(name).cloned());
        match self.value() {
            // Too large for machine integers.
            None => {}
            Some(None) => assert!(found.is_err(), "`{text}` divides by zero and gives {found:?}"),
            Some(Some((over, under))) if over % under == 0 && i64::try_from(over / under).is_ok() => {
                assert_eq!(found.ok(), Some(json!((over / under) as i64)), "`{text}`");
            }
            Some(Some((over, under))) => {
                let found = found.unwrap_or_else(|error| panic!("`{text}`: {error}"));
                let float = found.as_f64().or_else(|| found.as_str()?.parse().ok());
                let expected = over as f64 / under as f64;
                assert!(
                    float.is_some_and(|float| (float - expected).abs() <= 1e-12 * expected.abs()),
                    "`{text}` gives {found}"
                );
            }
        }
    }

    /// The formula; `if` stands at the outside only, so that inner choices are numbers that are looked up.
    fn text(&self) -> (String, serde_json::Map<String, Value>) {
        let mut names = serde_json::Map::new();
        let text = match self {
            Arithmetic::Choice(sign, of) => {
                let [a, b, yes, no] = &**of;
                let mut part = |of: &Arithmetic| of.part(&mut names);
                format!("if {} {sign} {} then {} else {}", part(a), part(b), part(yes), part(no))
            }
            other => other.part(&mut names),
        };
        (text, names)
    }

    fn part(&self, names: &mut serde_json::Map<String, Value>) -> String {
        match self {
            Arithmetic::Number(number) if number % 3 == 0 => {
                names.insert(
                    format!("x{number}"),
                    if number % 2 == 0 { json!(number) } else { json!(number.to_string()) },
                );
                format!("{{x{number}}}")
            }
            Arithmetic::Number(number) => number.to_string(),
            Arithmetic::Negative(inner) => format!("(-{})", inner.part(names)),
            Arithmetic::Binary(sign, a, b) => format!("({} {sign} {})", a.part(names), b.part(names)),
            Arithmetic::Power(inner, times) => format!("({} ^ {times})", inner.part(names)),
            Arithmetic::Call(name, of) => {
                let of: Vec<String> = of.iter().map(|part| part.part(names)).collect();
                format!("{name}({})", of.join(", "))
            }
            // A choice inside of something else: its first number stands for it, see `value_inside`.
            Arithmetic::Choice(_, of) => of[0].part(names),
        }
    }

    /// `None`: too large for us; `Some(None)`: a division by zero.
    fn value(&self) -> Option<Option<Fraction>> {
        let Arithmetic::Choice(sign, of) = self else { return self.value_inside() };
        let (Some(a), Some(b)) = (of[0].value_inside()?, of[1].value_inside()?) else { return Some(None) };
        let order = compare(a, b)?;
        let holds = match sign {
            '<' => order.is_lt(),
            '>' => order.is_gt(),
            _ => order.is_eq(),
        };
        of[if holds { 2 } else { 3 }].value_inside()
    }

    fn value_inside(&self) -> Option<Option<Fraction>> {
        macro_rules! known {
            ($part:expr) => {
                match $part.value_inside()? {
                    Some(value) => value,
                    None => return Some(None),
                }
            };
        }
        Some(Some(match self {
            Arithmetic::Number(number) => (i128::from(*number), 1),
            Arithmetic::Negative(inner) => {
                let (over, under) = known!(inner);
                (-over, under)
            }
            Arithmetic::Binary(sign, a, b) => {
                let (a, b) = (known!(a), known!(b));
                match sign {
                    '+' => plus(a, b)?,
                    '-' => plus(a, (-b.0, b.1))?,
                    '*' => small((a.0.checked_mul(b.0)?, a.1.checked_mul(b.1)?))?,
                    _ if b.0 == 0 => return Some(None),
                    _ => small((a.0.checked_mul(b.1)? * b.0.signum(), a.1.checked_mul(b.0.abs())?))?,
                }
            }
            Arithmetic::Power(inner, times) => {
                let (over, under) = known!(inner);
                small((over.checked_pow(*times)?, under.checked_pow(*times)?))?
            }
            Arithmetic::Call(name, of) => {
                let mut all = Vec::new();
                for part in of {
                    all.push(known!(part));
                }
                let mut total = (0, 1);
                let (mut least, mut most) = (all[0], all[0]);
                for part in &all {
                    total = plus(total, *part)?;
                    least = if compare(*part, least)?.is_lt() { *part } else { least };
                    most = if compare(*part, most)?.is_gt() { *part } else { most };
                }
                let count = all.len() as i128;
                match *name {
                    "sum" => total,
                    "max" => most,
                    "min" => least,
                    "avg" => small((total.0, total.1.checked_mul(count)?))?,
                    _ => (count, 1),
                }
            }
            Arithmetic::Choice(_, of) => known!(of[0]),
        }))
    }
}

fn plus(a: Fraction, b: Fraction) -> Option<Fraction> {
    small((a.0.checked_mul(b.1)?.checked_add(b.0.checked_mul(a.1)?)?, a.1.checked_mul(b.1)?))
}

fn compare(a: Fraction, b: Fraction) -> Option<std::cmp::Ordering> {
    Some(a.0.checked_mul(b.1)?.cmp(&b.0.checked_mul(a.1)?))
}

/// Left alone while it fits comfortably.
fn small(of: Fraction) -> Option<Fraction> {
    (of.0.unsigned_abs() < 1 << 100 && of.1 < 1 << 100).then_some(of)
}
