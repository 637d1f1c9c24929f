//! What the pages say of commands and options: each can be typed, and none is missing where all are named.

use super::*;

/// The commands of a shell's text, as words: what is quoted stays together, what redirects ends a command.
fn commands(text: &str) -> Vec<Vec<String>> {
    let mut commands = Vec::new();
    for line in text.replace("\\\n", " ").lines() {
        let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
        let mut end = |words: &mut Vec<String>| commands.push(std::mem::take(words));
        for c in line.strip_prefix("$ ").unwrap_or(line).chars() {
            match (quote, c) {
                (Some(mark), c) if c == mark => quote = None,
                (None, '"' | '\'') => {
                    quote = Some(c);
                    word.get_or_insert_default();
                }
                (None, '#') if word.is_none() => break,
                (None, ' ') => words.extend(word.take()),
                (None, '|' | '&' | ';' | '>' | '<') => {
                    words.extend(word.take());
                    end(&mut words);
                    // What follows is a file, and no command.
                    words.extend((c == '>' || c == '<').then(|| c.to_string()));
                }
                (_, c) => word.get_or_insert_default().push(c),
            }
        }
        words.extend(word);
        end(&mut words);
    }
    for command in &mut commands {
        let settings = command.iter().take_while(|word| word.contains('=') && !word.starts_with('-')).count();
        command.drain(..settings);
    }
    commands.retain(|words| words.first().is_some_and(|word| word == "flowrun" || word.ends_with("/flowrun")));
    commands
}

#[test]
fn every_command_of_the_docs_parses() {
    let mut shown: Vec<(String, String)> = Vec::new();
    for block in blocks() {
        let commands = |line: &&str| block.language == "sh" || line.starts_with("$ ");
        if ["sh", "console"].contains(&block.language.as_str()) {
            shown.push((block.place.clone(), block.text.lines().filter(commands).collect::<Vec<_>>().join("\n")));
        }
    }
    for (page, text) in pages() {
        let outside: String = text.split("\n```").step_by(2).collect();
        let indented = outside.lines().filter_map(|line| line.strip_prefix("    "));
        shown.push((page, indented.collect::<Vec<_>>().join("\n")));
    }
    let mut parsed = 0;
    for (place, words) in
        shown.iter().flat_map(|(place, text)| commands(text).into_iter().map(move |words| (place, words)))
    {
        parsed += 1;
        if let Err(problem) = flowrun::cli::definition().try_get_matches_from(&words) {
            assert!(!problem.use_stderr(), "{place}: {words:?}\n{problem}");
        }
    }
    assert!(parsed > 15, "only {parsed} commands are shown");
}

/// The command that words behind a command mean: itself, or one of its own commands.
fn inner<'a>(command: &'a clap::Command, words: &[&str]) -> &'a clap::Command {
    words.first().and_then(|word| command.find_subcommand(word)).unwrap_or(command)
}

#[test]
fn the_reference_has_every_option_of_the_commands_that_look_back() {
    let (_, reference) = pages().into_iter().find(|(page, _)| page == "docs/reference.md").unwrap();
    let section = reference.split("\n## ").find(|section| section.starts_with("Runs and kept answers")).unwrap();
    let root = flowrun::cli::definition();
    for name in ["runs", "trace", "export", "cache"] {
        let command = root.find_subcommand(name).unwrap();
        for inner in command.get_subcommands() {
            let shown = format!("`flowrun {name} {}", inner.get_name());
            let row = section.lines().find(|row| row.contains(&shown)).unwrap_or_else(|| panic!("no row of {shown}"));
            let options = inner.get_arguments().filter_map(|argument| argument.get_long());
            for option in options.filter(|option| !["db", "help"].contains(option)) {
                assert!(row.contains(&format!("--{option}")), "{shown}` lacks `--{option}`");
            }
        }
        for option in command.get_arguments().filter_map(|argument| argument.get_long()) {
            assert!(
                option == "help" || section.contains(&format!("--{option}")),
                "`flowrun {name}` lacks `--{option}`"
            );
        }
    }
}

#[test]
fn every_mention_of_a_command_or_an_option_is_right() {
    let root = flowrun::cli::definition();
    let long = |command: &clap::Command| -> Vec<String> {
        command.get_arguments().filter_map(|argument| Some(format!("--{}", argument.get_long()?))).collect()
    };
    let mut everywhere: Vec<String> =
        root.get_subcommands().flat_map(|command| command.get_subcommands().chain([command])).flat_map(long).collect();
    everywhere.extend(["--help".to_owned(), "--version".to_owned()]);
    let (mut mentions, mut problems) = (0, Vec::new());
    for (page, text) in pages() {
        let outside: String = text.split("```").step_by(2).collect();
        for code in outside.split('`').skip(1).step_by(2) {
            let words: Vec<&str> = code.split_whitespace().collect();
            let options =
                words.iter().filter(|word| word.starts_with("--")).map(|word| word.split('=').next().unwrap());
            let known = match words.as_slice() {
                ["flowrun", name, more @ ..] if name.starts_with(|c: char| c.is_ascii_lowercase()) => {
                    match root.find_subcommand(name) {
                        Some(command) => long(inner(command, more)),
                        None => {
                            problems.push(format!("{page}: `{code}`: there is no command `{name}`"));
                            continue;
                        }
                    }
                }
                ["flowrun", ..] => everywhere.clone(),
                [option, ..] if option.starts_with("--") => everywhere.clone(),
                _ => continue,
            };
            mentions += 1;
            let strange = options.filter(|option| !known.iter().any(|known| known == option) && *option != "--help");
            problems.extend(strange.map(|option| format!("{page}: `{code}`: there is no option `{option}`")));
        }
    }
    assert!(problems.is_empty() && mentions > 10, "{mentions} mentions\n{}", problems.join("\n"));
}
