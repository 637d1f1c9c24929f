//! Fractions of big integers, always in lowest terms with a positive denominator, and how they print.

use std::cmp::Ordering;

use num_bigint::BigInt;
use num_integer::Integer;
use num_traits::{One, Signed, ToPrimitive, Zero};
use serde_json::{Number, Value};

use super::problem;
use crate::failure::StepError;

/// Most digits of a numerator or denominator.
const DIGITS_MAX: u64 = 100_000;
/// The same in bits.
const BITS_MAX: u64 = DIGITS_MAX * 3322 / 1000;
/// Significant digits of what does not terminate.
const SIGNIFICANT: usize = 30;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fraction {
    numerator: BigInt,
    denominator: BigInt,
}

impl From<i64> for Fraction {
    fn from(number: i64) -> Self {
        Self { numerator: number.into(), denominator: BigInt::one() }
    }
}

fn too_long() -> StepError {
    problem(format!("the result has more than {DIGITS_MAX} digits"))
}

impl Fraction {
    fn new(numerator: BigInt, denominator: BigInt) -> Self {
        let common = numerator.gcd(&denominator);
        let sign = if denominator.is_negative() { -BigInt::one() } else { BigInt::one() };
        if common.is_zero() {
            return Self { numerator, denominator: BigInt::one() };
        }
        Self { numerator: &sign * numerator / &common, denominator: sign * denominator / common }
    }

    /// Reads `-12`, `3.5`, `1e-7`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok().filter(|e| e.abs() < 1_000)?),
            None => (text, 0),
        };
        let (whole, decimals) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{decimals}");
        let unsigned = digits.strip_prefix('-').unwrap_or(&digits);
        if unsigned.is_empty()
            || unsigned.len() as u64 > DIGITS_MAX
            || !unsigned.bytes().all(|byte| byte.is_ascii_digit())
        {
            return None;
        }
        let shift = decimals.len() as i32 - exponent;
        let power = BigInt::from(10).pow(shift.unsigned_abs());
        let number: BigInt = digits.parse().ok()?;
        Some(if shift >= 0 { Self::new(number, power) } else { Self::new(number * power, BigInt::one()) })
    }

    pub(super) fn negated(&self) -> Self {
        Self { numerator: -&self.numerator, denominator: self.denominator.clone() }
    }

    pub(super) fn plus(&self, other: &Self) -> Self {
        let numerator = &self.numerator * &other.denominator + &other.numerator * &self.denominator;
        Self::new(numerator, &self.denominator * &other.denominator)
    }

    pub(super) fn times(&self, other: &Self) -> Self {
        Self::new(&self.numerator * &other.numerator, &self.denominator * &other.denominator)
    }

    pub(super) fn over(&self, other: &Self) -> Result<Self, StepError> {
        if other.numerator.is_zero() {
            return Err(problem("division by zero"));
        }
        Ok(Self::new(&self.numerator * &other.denominator, &self.denominator * &other.numerator))
    }

    /// A power with a whole exponent; its size is estimated before it is computed.
    pub(super) fn to_the(&self, exponent: &Self) -> Result<Self, StepError> {
        if !exponent.denominator.is_one() {
            return Err(problem("`^` takes a whole exponent"));
        }
        let size = self.numerator.bits().max(self.denominator.bits());
        let trivial = size <= 1;
        let Some(times) =
            exponent.numerator.abs().to_u64().filter(|times| trivial || size.saturating_mul(*times) <= 2 * BITS_MAX)
        else {
            if trivial {
                return Ok(if exponent.numerator.is_even() {
                    Self::new(self.numerator.abs(), BigInt::one())
                } else {
                    self.clone()
                });
            }
            return Err(too_long());
        };
        let times = if trivial { (times % 2) as u32 + 2 * u32::from(times > 0) } else { times as u32 };
        let power = Self::new(self.numerator.pow(times), self.denominator.pow(times)).checked()?;
        if exponent.numerator.is_negative() { Self::from(1).over(&power) } else { Ok(power) }
    }

    pub(super) fn checked(self) -> Result<Self, StepError> {
        if self.numerator.bits().max(self.denominator.bits()) > BITS_MAX { Err(too_long()) } else { Ok(self) }
    }

    pub(super) fn compare(&self, other: &Self) -> Ordering {
        (&self.numerator * &other.denominator).cmp(&(&other.numerator * &self.denominator))
    }

    /// A JSON number where its shortest text is exactly the result; else a text of its digits.
    pub(super) fn to_value(&self) -> Value {
        if self.denominator.is_one() {
            let number = self.numerator.to_i128().and_then(Number::from_i128);
            return number.map_or_else(|| Value::String(self.numerator.to_string()), Value::Number);
        }
        let Some(text) = self.decimal() else { return Value::String(self.rounded()) };
        let float: f64 = text.parse().unwrap_or(f64::NAN);
        let exact = Self::parse(&float.to_string()).is_some_and(|read| read == *self);
        match serde_json::Number::from_f64(float).filter(|_| exact && text.len() <= 17) {
            Some(number) => Value::Number(number),
            None => Value::String(text),
        }
    }

    /// All digits, if they end.
    fn decimal(&self) -> Option<String> {
        let (mut rest, mut twos, mut fives) = (self.denominator.clone(), 0usize, 0usize);
        for (prime, count) in [(2, &mut twos), (5, &mut fives)] {
            let prime = BigInt::from(prime);
            while rest.is_multiple_of(&prime) && (*count as u64) < DIGITS_MAX {
                rest /= &prime;
                *count += 1;
            }
        }
        rest.is_one().then(|| self.with_decimals(twos.max(fives)))
    }

    fn with_decimals(&self, decimals: usize) -> String {
        let scaled = self.numerator.abs() * BigInt::from(10).pow(decimals as u32) / &self.denominator;
        let digits = format!("{:0>width$}", scaled.to_string(), width = decimals + 1);
        let (whole, fraction) = digits.split_at(digits.len() - decimals);
        let sign = if self.numerator.is_negative() { "-" } else { "" };
        if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
    }

    /// 30 significant digits, cut off.
    fn rounded(&self) -> String {
        let whole = (self.numerator.abs() / &self.denominator).to_string();
        if whole != "0" {
            return self.with_decimals(SIGNIFICANT.saturating_sub(whole.len()));
        }
        let small = (self.denominator.bits().saturating_sub(self.numerator.bits()) * 302 / 1000) as usize;
        let text = self.with_decimals(small + SIGNIFICANT + 2);
        let zeros = text.chars().skip_while(|c| *c != '.').skip(1).take_while(|c| *c == '0').count();
        self.with_decimals(zeros + SIGNIFICANT)
    }
}
