//! Why a step is as it is: a chain of sentences, each with the numbers of the log's events that it is read from.
//!
//! The chain follows what the log names (the source that was required, the step that failed inside, the winner) down to the first
//! cause; what a step waits for stands in no log, and is read from the workflow's graph where that is known.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

use flowrun_engine::event::Logged;
use flowrun_engine::graph::{Graph, Work};

use super::history::{History, StepHistory};
use super::place::{Place, Source, source};
use crate::trace::{counted, duration, thousands};

/// Longest chain of reasons.
const CHAIN_MAX: usize = 20;
/// Most steps that are named in one sentence.
const NAMED_MAX: usize = 5;

/// A sentence with its evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Said {
    /// The sentence. Names and messages in it are as the log has them.
    pub text: String,
    /// Numbers of the events that say so.
    pub log: Vec<u64>,
}

/// Collects the reasons of one step.
pub(super) struct Reasons<'a> {
    pub(super) history: &'a History<'a>,
    pub(super) graph: Option<&'a Arc<Graph>>,
    pub(super) said: Vec<Said>,
    told: BTreeSet<String>,
}

impl<'a> Reasons<'a> {
    pub(super) fn new(history: &'a History<'a>, graph: Option<&'a Arc<Graph>>) -> Self {
        Self { history, graph, said: Vec::new(), told: BTreeSet::new() }
    }

    fn say(&mut self, text: impl Into<String>, log: &[&Logged]) {
        self.said.push(Said { text: text.into(), log: log.iter().map(|event| event.sequence).collect() });
    }

    fn place(&self, path: &str) -> Option<Place> {
        Place::find(self.graph?, path)
    }

    /// The events of a step.
    pub(super) fn events(&self, path: &str) -> impl Iterator<Item = &'a Logged> {
        let (history, step) = (self.history, self.history.step(path));
        step.into_iter().flat_map(move |step| step.events.iter().map(move |at| &history.log.events[*at]))
    }

    fn last(&self, path: &str, kind: &str) -> Option<&'a Logged> {
        self.events(path).filter(|event| event.kind == kind).last()
    }

    fn decided(&self, path: &str, field: &str) -> Option<&'a Logged> {
        self.events(path).filter(|event| event.kind == "decided" && event.text("field") == Some(field)).last()
    }

    fn state(&self, path: &str) -> &str {
        self.history.step(path).map_or("unfinished", |step| &step.state)
    }

    /// What a step came to, as the end of a sentence.
    pub(super) fn came_to(&self, path: &str) -> &'static str {
        match self.state(path) {
            "succeeded" => "succeeded",
            "failed" => "failed",
            "skipped" => "was skipped",
            "cancelled" => "was cancelled",
            "suspended" => "waits for a person",
            "running" | "backoff" => "has not ended",
            "ready" => "waits for room",
            _ => "has not been decided",
        }
    }

    /// Why a step is as it is, down to the first cause.
    pub(super) fn why(&mut self, path: &str) {
        if self.said.len() >= CHAIN_MAX || !self.told.insert(path.to_owned()) {
            return;
        }
        match self.state(path) {
            "skipped" => self.skipped(path),
            "failed" => self.failed(path),
            "cancelled" => self.cancelled(path),
            "succeeded" => self.succeeded(path),
            _ => self.waits(path),
        }
    }

    fn succeeded(&mut self, path: &str) {
        let ended: Vec<&Logged> = self.last(path, "ended").into_iter().collect();
        let recovered = ended.first().and_then(|event| event.line["recovered"]["message"].as_str());
        let text = match recovered {
            Some(error) => format!("`{path}` succeeded: a declared value takes the place of its error: {error}"),
            None => format!("`{path}` succeeded"),
        };
        self.say(text, &ended);
        if let Some(list) = self.decided(path, "items") {
            let items = counted(list.line["count"].as_u64().unwrap_or(0), "item");
            self.say(format!("its `for_each` gave {items}"), &[list]);
        }
        if let Some(prefix) = self.last(path, "unused") {
            self.say(format!("its value ends before item {} (`stop_when`)", prefix.line["from"]), &[prefix]);
        }
        if let Some(last) = self.last(path, "pass_ended") {
            let passes = match last.line["pass"].as_u64().unwrap_or(0) {
                0 => "1 pass".to_owned(),
                last => format!("{} passes", thousands(last + 1)),
            };
            let how = match last.text("end").unwrap_or_default() {
                "limit" => "a bound was reached",
                "exit" => "the flow left the loop",
                "no_edge" => "no edge led back",
                _ => "nothing asked for another",
            };
            self.say(format!("it ended after {passes}: {how}"), &[last]);
        }
    }

    fn skipped(&mut self, path: &str) {
        let Some(ended) = self.last(path, "ended") else { return };
        let by = ended.text("source").unwrap_or_default().to_owned();
        match ended.text("reason").unwrap_or_default() {
            "requires" => {
                self.say(format!("`{path}` was skipped: it requires `{by}`, which {}", self.came_to(&by)), &[ended]);
                self.why(&by);
            }
            "output_requires" => {
                let text = format!("`{path}` was skipped: its `output` requires `{by}`, which {}", self.came_to(&by));
                self.say(text, &[ended]);
                self.why(&by);
            }
            "guard" => {
                let place = self.place(path);
                let when = place.as_ref().and_then(|place| place.node().code.guard.as_deref().map(source));
                let when = when.map(|when| format!(": {when}")).unwrap_or_default();
                let decided: Vec<&Logged> = self.decided(path, "guard").into_iter().chain([ended]).collect();
                self.say(format!("`{path}` was skipped: its `when` is false{when}"), &decided);
            }
            "not_routed" => {
                self.say(format!("`{path}` was skipped: no `next` led to it"), &[ended]);
                let edges: Vec<Source> = self.sources(path).into_iter().filter(|source| source.is_edge).collect();
                for edge in edges.iter().take(NAMED_MAX) {
                    self.took(&edge.path);
                }
            }
            "none_of" => {
                self.say(format!("`{path}` was skipped: too few of what it joins succeeded"), &[ended]);
                let mut sources: Vec<String> = self.sources(path).into_iter().map(|source| source.path).collect();
                sources.retain(|source| self.state(source) != "succeeded");
                sources.iter().take(NAMED_MAX).for_each(|source| self.why(source));
            }
            other => self.say(format!("`{path}` was skipped: {other}"), &[ended]),
        }
    }

    /// What a step waits for in its own graph, where that is known.
    fn sources(&self, path: &str) -> Vec<Source> {
        self.place(path).map(|place| place.sources()).unwrap_or_default()
    }

    /// Where the flow went on behind a step.
    fn took(&mut self, path: &str) {
        if self.state(path) != "succeeded" {
            return self.why(path);
        }
        let Some(route) = self.decided(path, "route") else {
            return self.say(format!("`{path}` succeeded, and its `next` leads elsewhere"), &[]);
        };
        self.say(format!("`{path}` succeeded, and its `next` {}", self.case_taken(path, route)), &[route]);
    }

    /// Which case of a `next` was taken.
    fn case_taken(&self, path: &str, route: &Logged) -> String {
        let Some(case) = route.line["case"].as_u64() else { return "had no case that held".to_owned() };
        match self.place(path).and_then(|place| place.case(case as usize)) {
            Some((to, Some(when))) => format!("led to {} ({when})", to.join(" and ")),
            Some((to, None)) => format!("led to {}", to.join(" and ")),
            None => format!("took its case {}", case + 1),
        }
    }

    fn failed(&mut self, path: &str) {
        let Some(ended) = self.last(path, "ended") else { return };
        let error = &ended.line["error"];
        let (code, message) = (error["code"].as_str().unwrap_or("?"), error["message"].as_str().unwrap_or("?"));
        let tolerated = if ended.line["tolerated"] == true { "; the run goes on without it" } else { "" };
        self.say(format!("`{path}` failed: {message} ({code}){tolerated}"), &[ended]);
        let history = self.history;
        let inside = |event: &&Logged| {
            event.kind == "ended"
                && event.text("state") == Some("failed")
                && event.line["tolerated"] != true
                && !event.step.is_empty()
                && history.parent(&event.step) == Some(path)
                && event.sequence < ended.sequence
        };
        if let Some(cause) = history.log.events.iter().find(inside) {
            self.why(&cause.step);
        }
    }

    fn cancelled(&mut self, path: &str) {
        let Some(ended) = self.last(path, "ended") else { return };
        let history = self.history;
        let around: BTreeSet<&str> = history.parents(path).chain([""]).collect();
        let before = history.log.events.iter().rev().skip_while(|event| event.sequence >= ended.sequence);
        // What follows from one event is written at one moment.
        for event in before.take_while(|event| event.time_us == ended.time_us) {
            let is_around = around.contains(event.step.as_str());
            match event.kind.as_str() {
                "cancel" => {
                    return self.say(format!("`{path}` was cancelled: who began the run ended it"), &[ended, event]);
                }
                "unused" if is_around => {
                    let (map, from) = (&event.step, &event.line["from"]);
                    let text = format!(
                        "`{path}` was cancelled: the first {from} items of `{map}` are its value (`stop_when`)"
                    );
                    return self.say(text, &[ended, event]);
                }
                "ready" => {
                    if let Some(winner) = event.text("winner") {
                        let text = format!(
                            "`{path}` was cancelled: `{winner}` came first at `{}`, and nothing else needs it",
                            event.step
                        );
                        return self.say(text, &[ended, event]);
                    }
                }
                "timer" if is_around => {
                    return self
                        .say(format!("`{path}` was cancelled: the time of `{}` was up", event.step), &[ended, event]);
                }
                "ended" if event.text("state") == Some("failed") && event.line["tolerated"] != true => {
                    let level = history.parent(&event.step);
                    if level.is_some_and(|level| around.contains(level)) {
                        self.say(
                            format!("`{path}` was cancelled: `{}` failed, and nothing tolerates that", event.step),
                            &[ended, event],
                        );
                        return self.why(&event.step);
                    }
                }
                _ => {}
            }
        }
        if let Some(outer) = history.parents(path).find(|outer| self.state(outer) == "cancelled") {
            self.say(format!("`{path}` was cancelled with `{outer}`, which it is part of"), &[ended]);
            return self.why(outer);
        }
        let end = history.log.events.iter().rev().find(|event| event.kind == "run_ended");
        match end.filter(|event| event.text("status") == Some("exhausted")) {
            Some(end) => {
                let bound = end.text("bound").unwrap_or("its means");
                self.say(format!("`{path}` was cancelled: the run had used up its {bound}"), &[ended, end]);
            }
            None => self.say(format!("`{path}` was cancelled"), &[ended]),
        }
    }

    /// What holds up a step that has not ended.
    fn waits(&mut self, path: &str) {
        let running = self.history.log.running_us.is_some();
        let Some(step) = self.history.step(path) else { return self.undecided(path) };
        let latest = step.events.last().map(|at| &self.history.log.events[*at]);
        let latest: Vec<&Logged> = latest.into_iter().collect();
        match step.state.as_str() {
            "suspended" => self.say(format!("`{path}` waits for a person's answer"), &latest),
            "backoff" => {
                let delay = latest.first().and_then(|event| event.line["delay_ms"].as_u64()).unwrap_or(0);
                let text =
                    format!("`{path}` waits for its next attempt, {} after the last one", duration(1_000 * delay));
                self.say(text, &latest);
            }
            _ if !running => self
                .say(format!("`{path}` had not ended when the log stopped: the run was interrupted or waits"), &latest),
            "running" => {
                let children: Vec<&str> = self.open_children(path);
                match children.first() {
                    None => self.say(format!("`{path}` is running"), &latest),
                    Some(child) => {
                        let (open, child) = (children.len() as u64, (*child).to_owned());
                        self.say(format!("`{path}` waits for {} inside it", counted(open, "step")), &latest);
                        self.why(&child);
                    }
                }
            }
            _ if self.is_held(step) => {
                self.say(format!("`{path}` waits for an answer that another step has asked for"), &latest);
            }
            _ => self.say(format!("`{path}` may run and waits for room"), &latest),
        }
    }

    fn is_held(&self, step: &StepHistory) -> bool {
        let event = |at: &usize| &self.history.log.events[*at];
        let last =
            step.events.iter().rev().map(event).find(|event| matches!(event.kind.as_str(), "decided" | "missed"));
        last.is_some_and(|event| event.line["held"] == true)
    }

    fn open_children(&self, path: &str) -> Vec<&'a str> {
        let history = self.history;
        let is_open =
            |(child, step): &(&&'a str, &StepHistory)| step.ended_us.is_none() && history.parent(child) == Some(path);
        history.steps.iter().filter(is_open).map(|(child, _)| *child).collect()
    }

    /// A step of which the log says nothing: it waits for others.
    fn undecided(&mut self, path: &str) {
        let open: Vec<Source> = self
            .sources(path)
            .into_iter()
            .filter(|source| self.history.step(&source.path).is_none_or(|step| step.ended_us.is_none()))
            .collect();
        if open.is_empty() {
            return self.say(format!("`{path}` has not been decided"), &[]);
        }
        let named: Vec<String> = open
            .iter()
            .take(NAMED_MAX)
            .map(|source| format!("`{}`, which {}", source.path, self.came_to(&source.path)))
            .collect();
        let more =
            if open.len() > NAMED_MAX { format!(", and {} more", open.len() - NAMED_MAX) } else { String::new() };
        self.say(format!("`{path}` waits for {}{more}", named.join("; ")), &[]);
        self.why(&open[0].path);
    }

    /// What let a step run: its winner, what it waited for, its guard.
    pub(super) fn what_let_it_run(&mut self, path: &str) {
        let Some(ready) = self.events(path).find(|event| event.kind == "ready") else { return };
        let Some(place) = self.place(path).filter(Place::is_own_step) else {
            if let Some(winner) = ready.text("winner") {
                self.say(format!("`{winner}` came first and let it run"), &[ready]);
            }
            return;
        };
        if let Some(winner) = ready.text("winner") {
            self.say(format!("`{winner}` came first and let it run (`join: first`)"), &[ready]);
        } else {
            self.settled_sources(&place, ready);
        }
        if let Some(guard) = self.decided(path, "guard") {
            let when = place.node().code.guard.as_deref().map(|when| format!(": {}", source(when))).unwrap_or_default();
            self.say(format!("its `when` holds{when}"), &[guard]);
        }
    }

    fn settled_sources(&mut self, place: &Place, ready: &Logged) {
        let sources = place.sources();
        if sources.is_empty() {
            let text = match place.node().work {
                Work::Loop(_) => "it waits for nothing",
                _ => "it depends on nothing, so it could begin at once",
            };
            return self.say(text, &[ready]);
        }
        for source in sources.iter().take(NAMED_MAX) {
            let path = &source.path;
            let route = self.decided(path, "route").filter(|_| source.is_edge);
            let ended: Vec<&Logged> = self.last(path, "ended").into_iter().chain(route).collect();
            let how = match (route, source.is_edge, source.is_required) {
                (Some(route), ..) => {
                    format!("`{path}` {}, and its `next` {}", self.came_to(path), self.case_taken(path, route))
                }
                (None, true, _) => format!("`{path}` {}, and its `next` leads here", self.came_to(path)),
                (None, false, true) => format!("it requires `{path}`, which {}", self.came_to(path)),
                (None, false, false) => format!("it waited for `{path}`, which {}", self.came_to(path)),
            };
            self.say(how, &ended);
        }
        if sources.len() > NAMED_MAX {
            self.say(format!("and {} more that it waited for", sources.len() - NAMED_MAX), &[ready]);
        }
    }
}
