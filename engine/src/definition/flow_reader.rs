//! The control flow of a node as it is written: `next`, `repeat`, `join`, and what becomes of failures.

use serde_json::Value;

use super::keys::{CASE, REPEAT};
use super::reader::Reader;
use super::{CaseDef, ErrorPolicyDef, Join, RepeatDef};
use crate::diagnostic::codes;
use crate::source::Part;

impl Reader<'_> {
    pub(super) fn join(&mut self, value: &Value) -> Option<Join> {
        match value.as_str() {
            Some("all") => return Some(Join::All),
            Some("any") => return Some(Join::Any),
            Some("first") => return Some(Join::First),
            _ => {}
        }
        match value.as_object().filter(|map| map.len() == 1).and_then(|map| map.get("quorum")) {
            Some(quorum) => {
                let count = quorum.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
                if count.is_none() {
                    self.at("quorum", |r| r.wrong("a whole number from 1", quorum).place.clone());
                }
                return count.map(Join::Quorum);
            }
            None => self.wrong("`all`, `any`, `first` or `{quorum: n}`", value),
        };
        None
    }

    /// `next: X`, or a list of cases.
    pub(super) fn next(&mut self, value: Value) -> Vec<CaseDef> {
        match value {
            Value::String(to) => vec![CaseDef { to: vec![to], ..CaseDef::default() }],
            Value::Object(_) => vec![self.case(value)],
            Value::Array(cases) if !cases.is_empty() => {
                let case = |(index, case): (usize, Value)| self.at(&index.to_string(), |r| r.case(case));
                cases.into_iter().enumerate().map(case).collect()
            }
            other => {
                self.wrong("a name, or a list of cases `{when, to}`", &other);
                Vec::new()
            }
        }
    }

    fn case(&mut self, value: Value) -> CaseDef {
        let mut case = CaseDef::default();
        if let Value::String(name) = &value {
            let problem = self.wrong("a case such as `{when: …, to: X}`", &value);
            problem.help.push(format!("`{{to: {name}}}` always goes there; `{{to: [a, b]}}` goes to several at once"));
            return case;
        }
        let has_target = value.get("to").is_some();
        let is_map = value.is_object();
        self.keys(value, CASE, |r, key, value| match key {
            "when" => case.when = Some(value),
            "to" => case.to = r.targets(value),
            "max" => case.max = Some(value),
            "on_limit" => case.limit_fails = r.on_limit(&value),
            key => unreachable!("BUG: nothing reads `{key}`"),
        });
        if is_map && !has_target {
            self.problem(Part::Value, codes::MISSING_KEY, "a case of `next` needs `to`, the name of a node");
        }
        case
    }

    fn targets(&mut self, value: Value) -> Vec<String> {
        match value {
            Value::Array(names) => {
                let mut targets: Vec<String> = Vec::new();
                for (index, name) in names.iter().enumerate() {
                    let name = self.at(&index.to_string(), |r| r.text(name));
                    targets.extend(name.filter(|name| !targets.contains(name)));
                }
                if names.is_empty() {
                    self.wrong("a name or a list of names", &Value::Array(names));
                }
                targets
            }
            one => self.text(&one).into_iter().collect(),
        }
    }

    pub(super) fn repeat(&mut self, value: Value) -> RepeatDef {
        let mut repeat = RepeatDef::default();
        if let Some(max) = value.as_u64() {
            let problem = self.wrong("a mapping such as `{until: …, max: 5}`", &value);
            problem.help.push(format!("write `repeat: {{max: {max}}}`"));
            return RepeatDef { max: Some(value), ..repeat };
        }
        self.keys(value, REPEAT, |r, key, value| match key {
            "until" => repeat.until = Some(value),
            "max" => repeat.max = Some(value),
            "on_limit" => repeat.limit_fails = r.on_limit(&value),
            key => unreachable!("BUG: nothing reads `{key}`"),
        });
        if repeat.max.is_none() {
            let problem = self.problem(Part::Key, codes::MISSING_KEY, "`repeat` needs `max`, the most passes");
            problem.help.push("no loop without a bound: write `max: 10`".to_owned());
        }
        repeat
    }

    fn on_limit(&mut self, value: &Value) -> bool {
        match value.as_str() {
            Some("succeed") => false,
            Some("fail") => true,
            _ => {
                self.wrong("`succeed` or `fail`", value);
                false
            }
        }
    }

    /// `on_step_error:`: whether a failing step of an expansion fails it.
    pub(super) fn on_step_error(&mut self, value: &Value) -> bool {
        match value.as_str() {
            Some("skip") => false,
            Some("fail") => true,
            _ => {
                self.wrong("`skip` or `fail`", value);
                false
            }
        }
    }

    pub(super) fn flag(&mut self, value: &Value) -> bool {
        if !value.is_boolean() {
            self.wrong("`true` or `false`", value);
        }
        value == &Value::Bool(true)
    }

    pub(super) fn policy(&mut self, value: Value, is_item: bool) -> ErrorPolicyDef {
        match &value {
            Value::String(word) => match word.as_str() {
                "fail" => return ErrorPolicyDef::Fail,
                "skip" => return ErrorPolicyDef::Skip,
                "drop" if is_item => return ErrorPolicyDef::Drop,
                _ => {}
            },
            Value::Object(map) if map.len() == 1 && map.contains_key("value") => {
                return ErrorPolicyDef::Value(map["value"].clone());
            }
            Value::Object(map) if map.len() == 1 && !is_item && map.contains_key("to") => {
                let to = self.at("to", |r| r.text(&map["to"]));
                return to.map_or(ErrorPolicyDef::Default, ErrorPolicyDef::To);
            }
            _ => {}
        }
        let wanted = if is_item {
            "`fail`, `drop`, `skip` or `{value: …}`"
        } else {
            "`fail`, `skip`, `{to: …}` or `{value: …}`"
        };
        let problem = self.wrong(wanted, &value);
        if value == "drop" {
            problem.help.push("items are dropped by `on_item_error: drop`".to_owned());
        }
        ErrorPolicyDef::Default
    }
}
