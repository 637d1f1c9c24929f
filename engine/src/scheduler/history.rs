//! What earlier passes gave: `last`, `past`, `iteration`, `pass`.
//!
//! A loop of any kind is a frame of passes, or of the items of a sequential map. A name's history is looked for in the innermost
//! one that contains the reader and has the name at its own level; it is read out of the frames of the earlier passes, so
//! nothing is kept for it.

use super::Scheduler;
use super::arena::Body;
use super::names::{Resolved, Scope};
use crate::fault::{self, Fault};
use crate::id::{FrameId, NodeIndex, StepId};
use crate::state::State;

/// A name in a loop.
struct Recurring<'a> {
    /// The frame of the passes.
    passes: FrameId,
    /// Which pass the reader stands in.
    pass: u32,
    /// The node of the body; `None`: the node that loops itself.
    node: Option<(NodeIndex, &'a [NodeIndex])>,
}

impl Scheduler {
    /// What a name gave in every earlier pass, oldest first; `None` if it is in no loop with the reader.
    pub fn history(&self, scope: Scope, name: &str) -> Option<Vec<Resolved>> {
        let found = self.recurring(scope, name)?;
        Some((0..found.pass).map(|pass| self.earlier(&found, pass)).collect())
    }

    /// What a name gave in the pass before; null in the first.
    pub fn last(&self, scope: Scope, name: &str) -> Option<Resolved> {
        let found = self.recurring(scope, name)?;
        let back = 1 + u32::from(fault::is(Fault::LastIsBeforeLast));
        Some(found.pass.checked_sub(back).map_or(Resolved::Null, |pass| self.earlier(&found, pass)))
    }

    fn earlier(&self, found: &Recurring, pass: u32) -> Resolved {
        let step = self.frames[found.passes.index()].items().steps[pass as usize];
        let complete = matches!(self.state(step), State::Succeeded | State::Skipped) && self.error(step).is_none();
        let step = match found.node {
            None => Some(step),
            // Which nodes of a failed item had finished is timing.
            Some(_) if !complete && !fault::is(Fault::FailedPassIsVisible) => None,
            Some((node, way)) => self.child(step, node).and_then(|step| self.inside(step, way).ok()),
        };
        let is_own = |step: &StepId| self.error(*step).is_none() || fault::is(Fault::RecoveredIsVisible);
        let counts = |step: &StepId| self.state(*step) == State::Succeeded && is_own(step);
        step.filter(counts).and_then(|step| self.value(step)).map_or(Resolved::Null, Resolved::Value)
    }

    fn recurring(&self, scope: Scope, name: &str) -> Option<Recurring<'_>> {
        let (mut frame_id, mut through) = self.scope_frame(scope);
        while let Some(frame) = self.frames.get(frame_id.index()) {
            let parent = frame.parent;
            match &frame.body {
                Body::Items(items) if items.loops() && self.name(parent) == name => {
                    let pass = through.map_or(items.steps.len() as u32, |step| self.steps[step.index()].index);
                    return Some(Recurring { passes: frame_id, pass, node: None });
                }
                Body::Items(_) => {}
                Body::Nodes { .. } => {
                    let graph = &frame.graph.0;
                    let node = graph.find_anywhere(name);
                    if node.is_some() && parent != StepId::ROOT {
                        let passes = self.steps[parent.index()].frame;
                        let around = &self.frames[passes.index()];
                        let is_loop = around.is_items() && around.items().loops();
                        let pass = self.steps[parent.index()].index;
                        return is_loop.then_some(Recurring { passes, pass, node });
                    }
                    if graph.inputs.is_some() {
                        return None;
                    }
                }
            }
            through = Some(parent);
            frame_id = self.steps[parent.index()].frame;
        }
        None
    }

    /// The passes around a place, innermost first, as far as its workflow or plan goes.
    fn passes_around(&self, scope: Scope) -> Vec<u32> {
        let (mut frame_id, mut through) = self.scope_frame(scope);
        let mut passes = Vec::new();
        while let Some(frame) = self.frames.get(frame_id.index()) {
            match &frame.body {
                Body::Items(items) if items.loops() => {
                    passes.extend(through.map(|step| self.steps[step.index()].index));
                }
                Body::Nodes { .. } if frame.graph.0.inputs.is_some() => break,
                _ => {}
            }
            through = Some(frame.parent);
            frame_id = self.steps[frame.parent.index()].frame;
        }
        passes
    }

    /// The innermost pass, or the number of the item of a sequential map, from 0.
    pub fn iteration(&self, scope: Scope) -> Option<u32> {
        self.passes_around(scope).first().copied()
    }

    /// The passes of all loops around a place, outermost first.
    pub fn pass(&self, scope: Scope) -> Vec<u32> {
        let mut passes = self.passes_around(scope);
        passes.reverse();
        passes
    }
}
