//! A step by what somebody read in a drawing: `loop(draft)#1/judge` is the step whose path is `judge#1`.

use super::Trace;

impl Trace {
    /// The position in [`Trace::steps`] of a step that is named by its path, or by the names of the steps around it as the tree draws
    /// them, from the outermost on: `loop(draft)#1/judge` or `loop(draft)/#1/judge`. O(steps).
    pub fn find(&self, text: &str) -> Option<usize> {
        self.steps.iter().position(|step| step.path == text).or_else(|| self.drawn(text))
    }

    fn drawn(&self, text: &str) -> Option<usize> {
        let text = text.replace("/#", "#").replace("/[", "[");
        let mut stack: Vec<(usize, &str)> = self.roots.iter().map(|root| (*root, text.as_str())).collect();
        while let Some((at, rest)) = stack.pop() {
            match rest.strip_prefix(self.steps[at].name.as_str()) {
                None => {}
                Some("") => return Some(at),
                Some(rest) => {
                    let inner = rest.strip_prefix('/').or_else(|| rest.starts_with(['#', '[']).then_some(rest));
                    let children =
                        inner.into_iter().flat_map(|inner| self.steps[at].children.iter().map(move |at| (*at, inner)));
                    stack.extend(children);
                }
            }
        }
        None
    }
}
