//! `flowrun check --cost`: what a run costs at most, for people and as JSON.

use std::sync::Arc;

use flowrun_engine::graph::Workflow;
use serde_json::{Value, json};

use super::check::Format;
use super::{InputArgs, run};
use crate::cost::{Bounded, Cost, READABLE_MAX, readable};
use crate::{Flowrun, render};

/// The cost of a workflow as it is printed.
pub(super) fn cost(
    flowrun: &Flowrun,
    file: &str,
    workflow: &Arc<Workflow>,
    inputs: &InputArgs,
    format: Format,
) -> Result<String, String> {
    let inputs = run::inputs(workflow, inputs)?;
    let cost = Cost::of(workflow, flowrun.kinds().specs(), &inputs)
        .map_err(|problem| format!("{problem}\nhelp: {}", run::usage(workflow)))?;
    Ok(match format {
        Format::Text => text(&cost),
        Format::Json => json!({"file": file, "cost": object(&cost)}).to_string() + "\n",
    })
}

fn text(cost: &Cost) -> String {
    let rows: Vec<[String; 3]> = cost.parts().iter().map(|(name, bounded)| row(name, bounded)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (names, formulas) = (width(0), width(1));
    let mut text = String::new();
    for [name, formula, number] in &rows {
        text.push_str(format!("{name:names$}  {formula:formulas$}  {number}").trim_end());
        text.push('\n');
    }
    for named in &cost.names {
        let name = render::visible(&named.name);
        text.push_str(&match named.limit {
            Some(limit) => format!("  {name} ≤ {} by `{limit}`\n", readable(named.most)),
            None => format!("  {name} = {} with these inputs\n", readable(named.most)),
        });
    }
    text
}

/// Name, formula, number; a formula that is a number stands there once.
fn row(name: &str, bounded: &Bounded) -> [String; 3] {
    let number = readable(bounded.most);
    let formula = bounded.formula.as_deref().map(render::visible);
    let mut most = match &formula {
        Some(formula) if *formula == number => String::new(),
        Some(_) => format!("≤ {number}"),
        None => format!("≤ {number} (the formula is too long to be read)"),
    };
    if let Some((held, by)) = bounded.held_to {
        most.push_str(&format!(
            "{}held to {} by `{by}`",
            if most.is_empty() { "" } else { ", " },
            readable(held.into())
        ));
    }
    [name.to_owned(), formula.unwrap_or_default(), most]
}

fn object(cost: &Cost) -> Value {
    let number = |number: u128| if number > READABLE_MAX { None } else { u64::try_from(number).ok() };
    let part = |(name, bounded): (&str, &Bounded)| {
        let held_to = bounded.held_to.map(|(most, by)| json!({"most": most, "by": by}));
        (name.replace(' ', "_"), json!({"formula": bounded.formula, "most": number(bounded.most), "held_to": held_to}))
    };
    let mut object: serde_json::Map<String, Value> = cost.parts().into_iter().map(part).collect();
    let names = cost.names.iter().map(|named| {
        let (name, most, limit) = (&named.name, number(named.most), named.limit);
        json!({"name": name, "most": most, "limit": limit})
    });
    object.insert("names".to_owned(), names.collect());
    Value::Object(object)
}
