//! Problems as people read them: code, message, place, the lines of the file, what to do.
//!
//! What is shown comes out of files that strangers wrote, so nothing in it may steer the terminal: control characters and
//! marks that turn the direction of writing are shown by number.

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use flowrun_engine::diagnostic::{Diagnostic, Place};
use flowrun_engine::source::Source;

/// Most problems that are shown; those beyond are counted.
const SHOWN_MAX: usize = 100;

/// Shows all problems, one after the other, with the lines of those `sources` whose names the places give.
pub(crate) fn render(diagnostics: &[Diagnostic], sources: &[&Source], styled: bool) -> String {
    let renderer = if styled { Renderer::styled() } else { Renderer::plain() }.decor_style(DecorStyle::Ascii);
    let shown = diagnostics.iter().take(SHOWN_MAX).map(|problem| one(problem, sources, &renderer) + "\n");
    let mut text = shown.collect::<Vec<_>>().join("\n");
    if diagnostics.len() > SHOWN_MAX {
        text.push_str(&format!("\n… and {} more problems\n", diagnostics.len() - SHOWN_MAX));
    }
    text
}

fn one(problem: &Diagnostic, sources: &[&Source], renderer: &Renderer) -> String {
    let level = if problem.is_error() { Level::ERROR } else { Level::WARNING };
    let mut group = Group::with_title(level.primary_title(visible(&problem.message)).id(problem.code.0));
    match &problem.place {
        Some(place) => match sources.iter().find(|source| *source.name() == place.file) {
            Some(source) => group = group.element(snippet(problem, place, source)),
            None => {
                let origin = Origin::path(visible(&place.file)).line(place.line as usize);
                group = group.element(origin.char_column(place.column as usize));
            }
        },
        None if problem.path.is_empty() => {}
        None => group = group.element(Level::NOTE.message(format!("at `{}`", visible(&problem.path)))),
    }
    let here = problem.place.as_ref().map(|place| &place.file);
    for (label, place) in problem.related.iter().filter(|(_, place)| Some(&place.file) != here) {
        let at = format!("{}:{}:{}: {}", visible(&place.file), place.line, place.column, visible(label));
        group = group.element(Level::NOTE.message(at));
    }
    let help = problem.help.iter().map(|line| Level::HELP.message(visible(line)));
    renderer.render(&[group.elements(help)])
}

/// The lines of the place and of the related places in the same file.
fn snippet<'a>(
    problem: &'a Diagnostic,
    place: &Place,
    source: &'a Source,
) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    let text = source.text();
    let related = || problem.related.iter().filter(|(_, other)| other.file == place.file);
    let clamp = |at: usize| at.min(text.len());
    let places = || std::iter::once(place).chain(related().map(|(_, other)| other));
    let first = places().map(|place| clamp(place.start)).min().unwrap_or_default();
    let last = places().map(|place| clamp(place.end)).max().unwrap_or_default();
    let start = text[..first].rfind('\n').map_or(0, |at| at + 1);
    let end = text[last..].find('\n').map_or(text.len(), |at| last + at);
    let end = start + text[start..end].trim_end_matches('\r').len();
    let line = text[..start].matches('\n').count() + 1;
    let within = |place: &Place| clamp(place.start).min(end) - start..clamp(place.end).min(end) - start;
    let marks = related()
        .map(|(label, other)| AnnotationKind::Context.span(within(other)).label(visible(label)))
        .chain([AnnotationKind::Primary.span(within(place))]);
    Snippet::source(&text[start..end]).line_start(line).path(visible(&place.file)).annotations(marks)
}

/// The text with everything that steers a terminal shown by number.
fn visible(text: &str) -> String {
    let steers = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if steers(c) { c.escape_unicode().to_string() } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowrun_engine::diagnostic::codes;

    fn place(source: &Source, start: usize, end: usize) -> Place {
        let line = source.text()[..start].matches('\n').count() as u32 + 1;
        Place { file: source.name().clone(), line, column: 1, start, end }
    }

    #[test]
    fn shows_code_place_lines_and_help() {
        let source = Source::unparsed("f.yaml", "a: 1\nb: 2\na: 3\n");
        let mut problem = Diagnostic::error(codes::DUPLICATE_KEY, "a", "written twice").help("keep one");
        problem.place = Some(place(&source, 10, 11));
        problem.related.push(("first".to_owned(), place(&source, 0, 1)));
        let expected = "error[FR003]: written twice\n --> f.yaml:3:1\n  |\n1 | a: 1\n  | - first\n2 | b: 2\n3 | a: 3\n  | ^\n  |\n  = help: keep one\n";
        assert_eq!(render(&[problem], &[&source], false), expected);
    }

    #[test]
    fn what_is_shown_cannot_steer_the_terminal() {
        let problem = Diagnostic::error(codes::BAD_NAME, "nodes.x\u{1b}[2J", "no name: \u{1b}[31m\u{202e}");
        for styled in [false, true] {
            let text = render(std::slice::from_ref(&problem), &[], styled);
            assert!(!text.contains("\u{1b}[2J") && !text.contains("\u{1b}[31m\u{202e}"), "{text:?}");
        }
    }

    #[test]
    fn very_many_problems_are_counted() {
        let problems = vec![Diagnostic::error(codes::UNKNOWN_KEY, "", "x"); 150];
        assert!(render(&problems, &[], false).ends_with("… and 50 more problems\n"));
    }
}
