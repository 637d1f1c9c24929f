//! Our filters on lists: voting, choosing, flattening, merging.
//!
//! All take null as an empty list. `by` is an attribute path, an index, or a parallel list of keys. Sorting is stable, ties
//! go to the first seen, and numbers are equal by value (1 = 1.0); a text never equals a number.

use std::cmp::Ordering;

use minijinja::value::{Kwargs, Rest};
use minijinja::{Environment, Error, Value};
use serde_json::{Number, Value as Json, json};

use super::convert::{from_json, invalid, to_json};
use super::filters::{Args, Given};

type Outcome = Result<Value, Error>;

pub(super) fn add(environment: &mut Environment<'static>) {
    environment.add_filter("vote", |args: Rest<Value>, named: Kwargs| vote(Given(args, named)));
    environment.add_filter("decided", |args: Rest<Value>, named: Kwargs| decided(Given(args, named)));
    environment.add_filter("top_k", |args: Rest<Value>, named: Kwargs| top_k(Given(args, named)));
    environment.add_filter("best", |args: Rest<Value>, named: Kwargs| best(Given(args, named)));
    environment.add_filter("unique", |args: Rest<Value>, named: Kwargs| unique(Given(args, named)));
    environment.add_filter("flatten", |args: Rest<Value>, named: Kwargs| flatten(Given(args, named)));
    environment.add_filter("merge", |args: Rest<Value>, named: Kwargs| merge(Given(args, named)));
    environment.add_filter("zip", |args: Rest<Value>, named: Kwargs| zip(Given(args, named)));
    environment.add_filter("product", |args: Rest<Value>, named: Kwargs| product(Given(args, named)));
    environment.add_filter("sort", |args: Rest<Value>, named: Kwargs| sort(Given(args, named)));
}

/// The list before `|`; null is the empty one.
fn list(filter: &str, value: &Value) -> Result<Vec<Json>, Error> {
    match to_json(value)? {
        Json::Null => Ok(Vec::new()),
        Json::Array(items) => Ok(items),
        _ => Err(invalid(format!("`{filter}` wants a list"))),
    }
}

/// The key of every item: itself, or what `by` says.
fn keys(filter: &str, items: &[Json], by: Option<Json>) -> Result<Vec<Json>, Error> {
    match by {
        None => Ok(items.to_vec()),
        Some(Json::Array(keys)) if keys.len() == items.len() => Ok(keys),
        Some(Json::Array(keys)) => {
            Err(invalid(format!("`{filter}`: {} keys in `by` for {} items", keys.len(), items.len())))
        }
        Some(Json::String(path)) => items.iter().map(|item| attribute(filter, item, &path)).collect(),
        Some(Json::Number(index)) => {
            let at = index.as_u64().unwrap_or(u64::MAX) as usize;
            let missing = || invalid(format!("`{filter}`: an item has no element {index}"));
            items.iter().map(|item| item.get(at).cloned().ok_or_else(missing)).collect()
        }
        Some(_) => Err(invalid(format!("`{filter}`: `by` is an attribute, an index or a list"))),
    }
}

fn attribute(filter: &str, item: &Json, path: &str) -> Result<Json, Error> {
    let found = path.split('.').try_fold(item, |at, part| at.get(part));
    found.cloned().ok_or_else(|| invalid(format!("`{filter}`: an item has no attribute `{path}`")))
}

/// Equality of answers: numbers by value, everything else as it is.
pub(super) fn same(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => a == b || a.is_f64() != b.is_f64() && a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

fn order(filter: &str, a: &Json, b: &Json) -> Result<Ordering, Error> {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => {
            // As floats, whole numbers from 2^53 on are equal to their neighbours.
            let whole =
                |number: &Number| number.as_f64().filter(|float| float.fract() == 0.0).map(|float| float as i128);
            let exact =
                |number: &Number| number.as_i128().or_else(|| whole(number)).filter(|whole| whole.abs() >= 1 << 53);
            let order = a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal);
            Ok(order.then(exact(a).cmp(&exact(b))))
        }
        (Json::String(a), Json::String(b)) => Ok(a.cmp(b)),
        (Json::Bool(a), Json::Bool(b)) => Ok(a.cmp(b)),
        _ => Err(invalid(format!("`{filter}` cannot order values of different types, or lists, maps and nulls"))),
    }
}

struct Count {
    value: Json,
    weight: f64,
}

/// Votes per distinct answer in first-seen order; nulls do not vote.
fn count(votes: &[Json], weights: Option<&[Json]>) -> Result<Vec<Count>, Error> {
    let mut counts: Vec<Count> = Vec::new();
    for (index, vote) in votes.iter().enumerate().filter(|(_, vote)| !vote.is_null()) {
        let weight = match weights {
            None => 1.0,
            Some(weights) => weights[index].as_f64().ok_or_else(|| invalid("`vote`: a weight is no number"))?,
        };
        match counts.iter_mut().find(|count| same(&count.value, vote)) {
            Some(count) => count.weight += weight,
            None => counts.push(Count { value: vote.clone(), weight }),
        }
    }
    Ok(counts)
}

fn tidy(number: f64) -> Json {
    if number.fract() == 0.0 && number.abs() < 9e15 { Json::from(number as i64) } else { json!(number) }
}

/// `{winner, share, margin, tie, voters, counts}`; without voters the winner is null.
fn vote(args: Given) -> Outcome {
    let args = Args::bind("vote", args, &["by", "weights"])?;
    let items = list("vote", &args.value)?;
    let votes = keys("vote", &items, args.json(0)?)?;
    let weights = match args.json(1)? {
        None => None,
        Some(Json::Array(weights)) if weights.len() == votes.len() => Some(weights),
        Some(_) => return Err(invalid("`vote`: `weights` must be a list as long as the votes")),
    };
    let counts = count(&votes, weights.as_deref())?;
    let voters = votes.iter().filter(|vote| !vote.is_null()).count();
    let total: f64 = counts.iter().map(|count| count.weight).sum();
    let mut ranked: Vec<&Count> = counts.iter().collect();
    ranked.sort_by(|a, b| b.weight.partial_cmp(&a.weight).unwrap_or(Ordering::Equal));
    let first = ranked.first().map_or(0.0, |count| count.weight);
    let second = ranked.get(1).map_or(0.0, |count| count.weight);
    let share = |part: f64| if total == 0.0 { json!(0) } else { tidy(part / total) };
    let counted: Vec<Json> = counts.iter().map(|c| json!({"value": c.value, "votes": tidy(c.weight)})).collect();
    Ok(from_json(&json!({
        "winner": ranked.first().map(|count| count.value.clone()),
        "share": share(first),
        "margin": share(first - second),
        "tie": ranked.len() > 1 && first == second,
        "voters": voters,
        "counts": counted,
    })))
}

/// Whether more samples would hardly change a vote: by confidence (a beta posterior over the two leaders), by the last `window`
/// agreeing, or because the rest of `total` cannot overtake the leader.
fn decided(args: Given) -> Outcome {
    let args = Args::bind("decided", args, &["confidence", "window", "total"])?;
    let votes = list("decided", &args.value)?;
    if let Some(window) = args.json(1)? {
        let window = window.as_u64().ok_or_else(|| invalid("`decided`: `window` is a whole number"))? as usize;
        let agree = votes.len() >= window
            && votes.len().checked_sub(window).is_some_and(|from| {
                votes[from..].windows(2).all(|pair| same(&pair[0], &pair[1]))
                    && !votes[from..].iter().all(Json::is_null)
            });
        return Ok(Value::from(agree));
    }
    let mut weights: Vec<f64> = count(&votes, None)?.iter().map(|count| count.weight).collect();
    weights.sort_by(|a, b| b.partial_cmp(a).unwrap_or(Ordering::Equal));
    let (first, second) = (weights.first().copied().unwrap_or(0.0), weights.get(1).copied().unwrap_or(0.0));
    if let Some(total) = args.json(2)? {
        let total = total.as_f64().ok_or_else(|| invalid("`decided`: `total` is a number"))?;
        return Ok(Value::from(first > second + (total - votes.len() as f64).max(0.0)));
    }
    let confidence = args.json(0)?.map_or(Some(0.95), |value| value.as_f64());
    let confidence = confidence.ok_or_else(|| invalid("`decided`: `confidence` is a number"))?;
    Ok(Value::from(leads_for_sure(first as u64, second as u64) > confidence))
}

/// Probability that the true share of the leader is above one half, with a uniform prior: the upper half of
/// Beta(first + 1, second + 1), as a sum of binomial terms. O(votes).
fn leads_for_sure(first: u64, second: u64) -> f64 {
    let n = first + second + 1;
    let (mut term, mut sum) = (0.5f64.powi(i32::try_from(n.min(1_000)).unwrap_or(1_000)), 0.0);
    for k in 0..=first.min(1_000) {
        sum += term;
        term *= (n.saturating_sub(k)) as f64 / (k + 1) as f64;
    }
    sum.min(1.0)
}

/// Items in the order of their keys, best first; stable.
fn ranked(filter: &str, args: &Args, by: Option<Json>, lowest: bool) -> Result<Vec<Json>, Error> {
    let items = list(filter, &args.value)?;
    let keys = keys(filter, &items, by)?;
    let mut pairs: Vec<(Json, Json)> = keys.into_iter().zip(items).filter(|(key, _)| !key.is_null()).collect();
    sort_pairs(filter, &mut pairs, !lowest)?;
    Ok(pairs.into_iter().map(|(_, item)| item).collect())
}

fn sort_pairs(filter: &str, pairs: &mut [(Json, Json)], descending: bool) -> Result<(), Error> {
    let mut problem = None;
    pairs.sort_by(|(a, _), (b, _)| {
        let found = order(filter, a, b).unwrap_or_else(|error| {
            problem.get_or_insert(error);
            Ordering::Equal
        });
        if descending { found.reverse() } else { found }
    });
    problem.map_or(Ok(()), Err)
}

fn top_k(args: Given) -> Outcome {
    let args = Args::bind("top_k", args, &["k", "by", "lowest"])?;
    let k = args.json(0)?.and_then(|k| k.as_u64()).ok_or_else(|| invalid("`top_k` wants a whole number `k`"))?;
    let mut items = ranked("top_k", &args, args.json(1)?, args.flag(2))?;
    items.truncate(k as usize);
    Ok(from_json(&Json::Array(items)))
}

fn best(args: Given) -> Outcome {
    let args = Args::bind("best", args, &["by", "lowest"])?;
    let items = ranked("best", &args, args.json(0)?, args.flag(1))?;
    Ok(from_json(&items.into_iter().next().unwrap_or(Json::Null)))
}

fn unique(args: Given) -> Outcome {
    let args = Args::bind("unique", args, &["by"])?;
    let items = list("unique", &args.value)?;
    let keys = keys("unique", &items, args.json(0)?)?;
    let mut seen: Vec<Json> = Vec::new();
    let mut kept = Vec::new();
    for (key, item) in keys.into_iter().zip(items) {
        if !seen.iter().any(|other| same(other, &key)) {
            seen.push(key);
            kept.push(item);
        }
    }
    Ok(from_json(&Json::Array(kept)))
}

/// One level of lists opened; nulls in between are left out.
fn flatten(args: Given) -> Outcome {
    let args = Args::bind("flatten", args, &[])?;
    let mut flat = Vec::new();
    for item in list("flatten", &args.value)? {
        match item {
            Json::Array(items) => flat.extend(items),
            Json::Null => {}
            other => flat.push(other),
        }
    }
    Ok(from_json(&Json::Array(flat)))
}

/// Two maps; the right one wins, but null never replaces a value.
fn merge(args: Given) -> Outcome {
    let args = Args::bind("merge", args, &["other"])?;
    let maps = [Some(to_json(&args.value)?), args.json(0)?];
    let mut merged = serde_json::Map::new();
    for map in maps {
        match map {
            Some(Json::Object(map)) => {
                merged.extend(map.into_iter().filter(|(_, value)| !value.is_null()).collect::<Vec<_>>());
            }
            Some(Json::Null) | None => {}
            Some(_) => return Err(invalid("`merge` wants two maps")),
        }
    }
    Ok(from_json(&Json::Object(merged)))
}

fn zip(args: Given) -> Outcome {
    let args = Args::bind("zip", args, &["other"])?;
    let other = args.given[0].as_ref().ok_or_else(|| invalid("`zip` wants a second list"))?;
    let (left, right) = (list("zip", &args.value)?, list("zip", other)?);
    if left.len() != right.len() {
        return Err(invalid(format!("`zip`: lists of {} and {} items", left.len(), right.len())));
    }
    Ok(from_json(&left.into_iter().zip(right).map(|(a, b)| json!([a, b])).collect()))
}

fn product(args: Given) -> Outcome {
    let args = Args::bind("product", args, &["other"])?;
    let other = args.given[0].as_ref().ok_or_else(|| invalid("`product` wants a second list"))?;
    let (left, right) = (list("product", &args.value)?, list("product", other)?);
    if left.len().saturating_mul(right.len()) > 100_000 {
        return Err(invalid("`product`: more than 100,000 pairs"));
    }
    Ok(from_json(&left.iter().flat_map(|a| right.iter().map(move |b| json!([a, b]))).collect()))
}

fn sort(args: Given) -> Outcome {
    let args = Args::bind("sort", args, &["by", "reverse", "attribute"])?;
    let items = list("sort", &args.value)?;
    let by = args.json(0)?.or(args.json(2)?);
    let mut pairs: Vec<(Json, Json)> = keys("sort", &items, by)?.into_iter().zip(items).collect();
    sort_pairs("sort", &mut pairs, args.flag(1))?;
    Ok(from_json(&pairs.into_iter().map(|(_, item)| item).collect()))
}
