//! Upper bounds that can be read and computed: a sum of products of names, and the most that it can be.
//!
//! Names stand for what is not known before a run, such as `n(split)`, the number of items of `split`; none is ever negative.
//! `(1 + n(a)) · 3` is written out as `3 + 3·n(a)`; where two bounds compete and neither is always the larger, `max(1, n(a))`
//! is a factor of its own. Numbers saturate: no file makes them overflow. A formula that would be longer than anybody reads is
//! given up, its number is not.
//!
//! Cost: O(terms) to add, O(terms²) to multiply, and there are at most [`TERMS_MAX`].

use std::cmp::Ordering;
use std::sync::Arc;

/// Most terms of a formula, and most alternatives of a `max`.
const TERMS_MAX: usize = 24;

/// A bound: a formula, and the number that it is at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Amount {
    /// The number.
    pub(super) most: u128,
    /// Terms by their factors, each once; `None`: too long to write out.
    terms: Option<Vec<Term>>,
}

/// A product with its coefficient.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Term {
    factors: Vec<Factor>,
    times: u128,
}

/// Something that is not known before the run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Factor {
    Name(Arc<str>),
    /// The largest of several sums.
    Max(Vec<Vec<Term>>),
}

impl Amount {
    pub(super) const ZERO: Self = Self { most: 0, terms: Some(Vec::new()) };
    /// More than anything: what is not counted to its end.
    pub(super) const ENDLESS: Self = Self { most: u128::MAX, terms: None };

    pub(super) fn number(number: u128) -> Self {
        let terms = if number == 0 { Vec::new() } else { vec![Term { factors: Vec::new(), times: number }] };
        Self { most: number, terms: Some(terms) }
    }

    /// A name that is at most so large.
    pub(super) fn name(name: Arc<str>, most: u128) -> Self {
        Self { most, terms: Some(vec![Term { factors: vec![Factor::Name(name)], times: 1 }]) }
    }

    pub(super) fn plus(self, other: &Self) -> Self {
        let most = self.most.saturating_add(other.most);
        let terms = self.terms.zip(other.terms.as_ref()).and_then(|(own, others)| {
            if let ([last], [more]) = (own.as_slice(), others.as_slice())
                && last.factors == more.factors
            {
                let times = last.times.saturating_add(more.times);
                return Some(vec![Term { times, ..more.clone() }]);
            }
            collected(own.into_iter().chain(others.iter().cloned()).collect())
        });
        Self { most, terms }
    }

    pub(super) fn times(&self, other: &Self) -> Self {
        let most = self.most.saturating_mul(other.most);
        let product = |a: &Term, b: &Term| {
            let mut factors: Vec<Factor> = a.factors.iter().chain(&b.factors).cloned().collect();
            factors.sort();
            Term { factors, times: a.times.saturating_mul(b.times) }
        };
        let terms = self.terms.as_ref().zip(other.terms.as_ref()).and_then(|(own, others)| {
            collected(own.iter().flat_map(|a| others.iter().map(move |b| product(a, b))).collect())
        });
        Self { most, terms }
    }

    /// The larger one, whichever that turns out to be.
    pub(super) fn or(self, other: &Self) -> Self {
        let most = self.most.max(other.most);
        let (Some(own), Some(others)) = (self.terms, &other.terms) else { return Self { most, terms: None } };
        if covers(others, &own) {
            return Self { most, terms: Some(others.clone()) };
        }
        if covers(&own, others) {
            return Self { most, terms: Some(own) };
        }
        let mut alternatives: Vec<Vec<Term>> = Vec::new();
        for one in alternatives_of(own).into_iter().chain(alternatives_of(others.clone())) {
            if !alternatives.iter().any(|known| covers(known, &one)) {
                alternatives.retain(|known| !covers(&one, known));
                alternatives.push(one);
            }
        }
        alternatives.sort();
        if alternatives.len() > TERMS_MAX {
            return Self { most, terms: None };
        }
        let terms = match alternatives.len() {
            1 => alternatives.remove(0),
            _ => vec![Term { factors: vec![Factor::Max(alternatives)], times: 1 }],
        };
        Self { most, terms: Some(terms) }
    }

    /// The same, which something else holds to a number.
    pub(super) fn at_most(self, most: u128) -> Self {
        Self { most: self.most.min(most), ..self }
    }

    /// The formula; `None` if it is too long to write out.
    pub(super) fn formula(&self) -> Option<String> {
        self.terms.as_deref().map(sum)
    }

    /// Every name in the formula.
    pub(super) fn each_name(&self, tell: &mut impl FnMut(&Arc<str>)) {
        names(self.terms.iter().flatten(), tell);
    }
}

fn names<'t>(terms: impl IntoIterator<Item = &'t Term>, tell: &mut impl FnMut(&Arc<str>)) {
    let mut open: Vec<&Term> = terms.into_iter().collect();
    while let Some(term) = open.pop() {
        for factor in &term.factors {
            match factor {
                Factor::Name(name) => tell(name),
                Factor::Max(sums) => open.extend(sums.iter().flatten()),
            }
        }
    }
}

/// Terms with the same factors become one; `None` if too many are left.
fn collected(mut terms: Vec<Term>) -> Option<Vec<Term>> {
    terms.sort_by(|a, b| a.factors.cmp(&b.factors));
    terms.dedup_by(|next, kept| {
        let same = next.factors == kept.factors;
        if same {
            kept.times = kept.times.saturating_add(next.times);
        }
        same
    });
    (terms.len() <= TERMS_MAX).then_some(terms)
}

/// Whether the one sum is never below the other, term by term.
fn covers(large: &[Term], small: &[Term]) -> bool {
    small.iter().all(|term| {
        let found = large.binary_search_by(|known| known.factors.cmp(&term.factors));
        found.is_ok_and(|at| large[at].times >= term.times)
    })
}

/// The sums that a `max` chooses from.
fn alternatives_of(mut terms: Vec<Term>) -> Vec<Vec<Term>> {
    match terms.as_mut_slice() {
        [Term { factors, times: 1 }] if matches!(factors.as_slice(), [Factor::Max(_)]) => match factors.pop() {
            Some(Factor::Max(sums)) => sums,
            _ => unreachable!("BUG: a `max` was there"),
        },
        _ => vec![terms],
    }
}

fn sum(terms: &[Term]) -> String {
    let shown: Vec<String> = terms.iter().map(product).collect();
    if shown.is_empty() { "0".to_owned() } else { shown.join(" + ") }
}

fn product(term: &Term) -> String {
    let factor = |factor: &Factor| match factor {
        Factor::Name(name) => name.to_string(),
        Factor::Max(sums) => format!("max({})", sums.iter().map(|terms| sum(terms)).collect::<Vec<_>>().join(", ")),
    };
    let factors = term.factors.iter().map(factor);
    match (term.times, term.factors.is_empty()) {
        (1, false) => factors.collect::<Vec<_>>().join("·"),
        (times, _) => std::iter::once(digits(times)).chain(factors).collect::<Vec<_>>().join("·"),
    }
}

/// Numbers above this are not worth their digits.
pub const READABLE_MAX: u128 = 1_000_000_000_000_000_000;

/// A number with commas; a very large one in words.
pub(super) fn digits(number: u128) -> String {
    match number.cmp(&READABLE_MAX) {
        Ordering::Greater => "more than 10^18".to_owned(),
        _ => crate::trace::thousands(u64::try_from(number).expect("BUG: 10^18 fits into 64 bits")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str, most: u128) -> Amount {
        Amount::name(name.into(), most)
    }

    #[test]
    fn sums_and_products_are_written_out() {
        let check = |amount: Amount, formula: &str, most: u128| {
            assert_eq!((amount.formula().as_deref(), amount.most), (Some(formula), most));
        };
        let (n, m) = (name("n(a)", 100), name("m", 3));
        check(Amount::ZERO, "0", 0);
        check(Amount::number(1234567), "1,234,567", 1_234_567);
        check(Amount::number(2).plus(&n).plus(&Amount::number(1)), "3 + n(a)", 103);
        check(Amount::number(1).plus(&n).times(&Amount::number(3)), "3 + 3·n(a)", 303);
        check(Amount::number(1).plus(&n).times(&m.clone().plus(&n)), "m + m·n(a) + n(a) + n(a)·n(a)", 10_403);
        check(n.times(&Amount::ZERO).plus(&m).plus(&m), "2·m", 6);
    }

    #[test]
    fn the_larger_one_is_known_or_named() {
        let check = |amount: Amount, formula: &str, most: u128| {
            assert_eq!((amount.formula().as_deref(), amount.most), (Some(formula), most));
        };
        let (n, m) = (name("n", 100), name("m", 3));
        check(Amount::number(2).or(&Amount::number(5)), "5", 5);
        check(Amount::number(1).or(&n.clone().plus(&Amount::number(1))), "1 + n", 101);
        check(Amount::number(1).or(&n), "max(1, n)", 100);
        check(Amount::number(1).or(&n).or(&m).or(&Amount::number(2)), "max(2, m, n)", 100);
        check(Amount::number(1).or(&n).times(&m).plus(&m), "m + m·max(1, n)", 303);
        check(Amount::number(1).or(&n).or(&n.times(&Amount::number(2))), "max(1, 2·n)", 200);
    }

    #[test]
    fn nothing_overflows_and_no_formula_fills_the_screen() {
        let mut huge = name("x", u128::MAX);
        for _ in 0..200 {
            huge = huge.times(&Amount::number(u128::MAX)).plus(&huge);
        }
        assert_eq!((huge.most, digits(huge.most).as_str()), (u128::MAX, "more than 10^18"));
        assert_eq!(digits(READABLE_MAX), "1,000,000,000,000,000,000");
        let many = (0..1_000).fold(Amount::ZERO, |sum, i| sum.plus(&name(&format!("x{i}"), 2)));
        assert_eq!((many.formula(), many.most), (None, 2_000));
        let largest = (0..1_000).fold(Amount::ZERO, |sum, i| sum.or(&name(&format!("x{i}"), i)));
        assert_eq!((largest.formula(), largest.most), (None, 999));
    }
}
