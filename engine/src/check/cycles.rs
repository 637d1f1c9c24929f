//! Circles, drawn as a path with the places that close it.

use super::Checker;
use super::fields::Use;
use super::scope::Names;
use crate::diagnostic::{Place, codes};
use crate::id::NodeIndex;
use crate::source::Part;

/// Most places that are shown of one circle.
const PLACES_MAX: usize = 8;

impl Checker<'_> {
    /// Reports a circle. `mentions` has what each node's fields mention, by node.
    pub(super) fn cycle(&mut self, names: &Names, cycle: &[NodeIndex], mentions: &[Vec<Use>], path: &[&str]) {
        let name = |index: &NodeIndex| names.nodes.get_index(index.index()).map_or("?", |(name, _)| name.as_str());
        let shown: Vec<&str> = cycle.iter().chain(cycle.first()).map(name).collect();
        let at: Vec<&str> = path.iter().copied().chain([shown[0]]).collect();
        let readers = cycle.iter().skip(1).chain(cycle.first());
        let related = cycle.iter().zip(readers).take(PLACES_MAX).filter_map(|(source, reader)| {
            let place = self.reference(names, *reader, name(source), mentions, path)?;
            Some((format!("`{}` needs `{}`", name(reader), name(source)), place))
        });
        let related = related.collect();
        let message = format!("these nodes need each other in a circle: {}", shorten(&shown));
        let problem = self.error(codes::CYCLE, &at, Part::Key, message);
        problem.related = related;
        problem.help.push("an arrow points from a node to the one that needs it; remove one reference".to_owned());
        let flows =
            |index: &NodeIndex| names.nodes.get_index(index.index()).is_some_and(|(_, node)| !node.next.is_empty());
        if cycle.iter().any(flows) {
            problem.help.push("what the pass before gave is read as `last.NODE`".to_owned());
        }
    }

    /// Where a node says that it needs another: in a field or in `needs`; `None` if only its body does.
    fn reference(
        &self,
        names: &Names,
        reader: NodeIndex,
        source: &str,
        mentions: &[Vec<Use>],
        path: &[&str],
    ) -> Option<Place> {
        let (name, node) = names.nodes.get_index(reader.index())?;
        if let Some(used) = mentions[reader.index()].iter().find(|used| *used.name.name == *source) {
            let path: Vec<&str> = used.path.iter().map(String::as_str).collect();
            return Some(self.source?.place_within(&path, used.name.range.clone()));
        }
        let need = node.needs.iter().position(|need| need.name == source)?.to_string();
        let path: Vec<&str> = path.iter().copied().chain([name.as_str(), "needs", need.as_str()]).collect();
        self.place(&path, Part::Value)
    }
}

fn shorten(names: &[&str]) -> String {
    if names.len() <= 12 {
        return names.join(" → ");
    }
    format!("{} → … ({} more) → {}", names[..6].join(" → "), names.len() - 9, names[names.len() - 3..].join(" → "))
}
