//! The six quantities of a cost, and how they grow when a step opens a frame or unfolds.

use flowrun_engine::graph::{Field, Node};
use flowrun_engine::node::REPAIR_TURNS;
use flowrun_engine::retry::RetryPolicy;
use serde_json::Value;

use super::amount::Amount;

/// What something costs at most.
#[derive(Clone, Debug)]
pub(super) struct Size {
    /// Model calls, if every attempt succeeds and no reply must be mended.
    pub(super) calls: Amount,
    /// Model calls with every retry and repair turn.
    pub(super) retried: Amount,
    /// Steps.
    pub(super) steps: Amount,
    /// Frames inside each other.
    pub(super) depth: u128,
    /// Leaf steps at once.
    pub(super) width: Amount,
    /// Steps that wait for each other.
    pub(super) path: Amount,
}

impl Size {
    pub(super) const ENDLESS: Self = Self {
        calls: Amount::ENDLESS,
        retried: Amount::ENDLESS,
        steps: Amount::ENDLESS,
        depth: u128::MAX,
        width: Amount::ENDLESS,
        path: Amount::ENDLESS,
    };

    /// One step that calls no model.
    pub(super) fn step(width: u128) -> Self {
        let one = Amount::number(1);
        Self {
            calls: Amount::ZERO,
            retried: Amount::ZERO,
            steps: one.clone(),
            depth: 0,
            width: Amount::number(width),
            path: one,
        }
    }

    /// A step that opens a frame.
    pub(super) fn framed(mut self) -> Self {
        self.steps = self.steps.plus(&Amount::number(1));
        self.depth = self.depth.saturating_add(1);
        self
    }

    /// A step that unfolds into so many, of which at most `window` are open at once.
    pub(super) fn unfolded(self, count: &Amount, window: Option<&Amount>) -> Self {
        let open = window.filter(|window| window.most < count.most).unwrap_or(count);
        let one_by_one = open.most <= 1;
        let unfolded = Self {
            calls: self.calls.times(count),
            retried: self.retried.times(count),
            steps: self.steps.times(count),
            depth: self.depth,
            width: self.width.times(open),
            path: if one_by_one { self.path.times(count) } else { self.path },
        };
        unfolded.framed()
    }
}

/// Attempts of one step.
pub(super) fn attempts(retry: &RetryPolicy) -> u128 {
    1 + if retry.on.is_empty() { 0 } else { u128::from(retry.max) }
}

/// A step of a kind.
pub(super) fn leaf(node: &Node) -> Size {
    let one = Size::step(1);
    if !node.code.spec.as_ref().is_some_and(|spec| spec.calls_model) {
        return one;
    }
    let structured = node.code.schema.is_some() || node.code.expansion.is_some();
    let written = node.code.fields.get("repair").and_then(Field::constant).and_then(Value::as_u64);
    let turns = if structured { written.unwrap_or(u64::from(REPAIR_TURNS)) } else { 0 };
    let retried = attempts(&node.retry).saturating_mul(1 + u128::from(turns));
    Size { calls: Amount::number(1), retried: Amount::number(retried), ..one }
}
