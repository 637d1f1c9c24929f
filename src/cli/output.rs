//! Where texts go: data to stdout, everything else to stderr. A closed pipe ends the writing, never the program.

use std::io::Write;

/// Whether colours may be used.
pub(crate) struct Styled;

impl Styled {
    /// On stderr: a terminal, and nobody said `NO_COLOR`.
    pub(crate) fn stderr() -> bool {
        anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never
    }
}

/// Writes data to stdout; a reader that went away is no error.
pub(crate) fn data(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _closed = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Writes a line to stderr.
pub(crate) fn say(line: &str) {
    say_raw(&format!("{line}\n"));
}

/// Writes text to stderr as it is.
pub(crate) fn say_raw(text: &str) {
    let mut stderr = anstream::stderr().lock();
    let _closed = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

/// Writes an error to stderr.
pub(crate) fn error(message: &str) {
    let bold = anstyle::AnsiColor::Red.on_default().bold();
    say(&format!("{bold}error{bold:#}: {message}"));
}

/// Writes what to do to stderr.
pub(crate) fn help(line: &str) {
    let bold = anstyle::AnsiColor::Cyan.on_default().bold();
    say(&format!("{bold}help{bold:#}: {line}"));
}

/// Width of the terminal in characters; 100 if there is none.
pub(crate) fn width() -> usize {
    terminal_size::terminal_size().map_or(100, |(width, _)| usize::from(width.0))
}

/// The beginning of a text as one line without control characters.
pub(crate) fn one_line(text: &str, characters: usize) -> String {
    let line: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(characters + 1).collect::<String>();
    if line.chars().count() > characters {
        line.chars().take(characters.saturating_sub(1)).chain(['…']).collect()
    } else {
        line
    }
}

/// A value for people: text as it is, else JSON.
pub(crate) fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
