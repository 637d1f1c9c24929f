//! The command line: what may be written, and which file does it.
//!
//! One file per command. Data goes to stdout, everything else to stderr; exit codes: 0 success, 1 failed, 2 wrong usage or a
//! file that does not check, 3 exhausted, 4 cancelled.

mod check;
mod graph;
mod inputs;
mod library;
mod models;
mod output;
mod progress;
mod report;
mod run;
mod runs;
mod trace;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use flowrun::{Config, LoadError};

use output::Styled;

const AFTER_HELP: &str = "\
Examples:
  flowrun ask \"A train leaves at 9:40 and needs 95 minutes. Is it there before 11:20?\"
  flowrun run examples/hello.yaml --model scripted:examples/hello.replies.yaml
  flowrun run @self-consistency --input question=\"What is 17 * 23?\" --input n=7
  flowrun check workflow.yaml
  flowrun trace last --prompts

A model: set OPENAI_BASE_URL (any OpenAI-compatible server), or write `models:` in flowrun.yaml; an Ollama on its usual
port is found by itself. `flowrun models` shows what is configured.

Exit codes: 0 success, 1 failed, 2 wrong usage or a file that does not check, 3 exhausted, 4 cancelled.";

/// Answers questions by running graphs of sub-questions.
#[derive(Parser)]
#[command(name = "flowrun", version, after_help = AFTER_HELP, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer a question: the model draws a graph of sub-questions, which are answered in parallel.
    Ask {
        /// The question.
        question: String,
        #[command(flatten)]
        options: run::Options,
    },
    /// Run a workflow: a file, `-` for stdin, or `@NAME` from the library.
    Run {
        /// The workflow.
        #[arg(value_name = "FILE|-|@NAME")]
        workflow: String,
        /// An input of the workflow, text as it is, other types as JSON. May be repeated.
        #[arg(long = "input", short = 'i', value_name = "NAME=VALUE", value_parser = inputs::pair)]
        inputs: Vec<(String, String)>,
        /// Inputs from a JSON or YAML file (a mapping); `--input` wins.
        #[arg(long, value_name = "FILE")]
        input_file: Option<PathBuf>,
        #[command(flatten)]
        options: run::Options,
    },
    /// Check workflow files: every problem with its place and what to do.
    Check {
        /// The files.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<String>,
        /// `text` for people on stderr, `json` for editors on stdout, one object a line.
        #[arg(long, value_enum, default_value = "text")]
        format: CheckFormat,
    },
    /// Draw the graph of a workflow.
    Graph {
        /// The workflow.
        #[arg(value_name = "FILE|-|@NAME")]
        workflow: String,
    },
    /// Show what happened in a run: every step, why it was skipped, what decided how long it took (`*`).
    Trace {
        /// `last`, a run's id, or the beginning of one.
        #[arg(default_value = "last")]
        run: String,
        /// Show this step alone, with its prompt and reply.
        step: Option<String>,
        /// `tree` for people, `jsonl` for the log as it is.
        #[arg(long, value_enum, default_value = "tree")]
        format: TraceFormat,
        /// Show the prompt and the reply of every step.
        #[arg(long)]
        prompts: bool,
        #[command(flatten)]
        place: RunsPlace,
    },
    /// List recorded runs, the latest last.
    Runs {
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: RunsPlace,
    },
    /// List the workflows of the library.
    List,
    /// Print a workflow of the library.
    Show {
        /// Its name, such as `@question-graph`.
        #[arg(value_name = "@NAME")]
        name: String,
    },
    /// Show which models are configured, and ask each for a word.
    Models,
    /// Print the completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CheckFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TraceFormat {
    Tree,
    Jsonl,
}

/// Where runs are.
#[derive(clap::Args, Clone)]
struct RunsPlace {
    /// Folder of the recorded runs [default: .flowrun/runs].
    #[arg(long, value_name = "DIR")]
    runs_dir: Option<PathBuf>,
}

impl RunsPlace {
    fn folder(&self, config: &Config) -> PathBuf {
        let folder = self.runs_dir.clone().or_else(|| config.defaults().runs_dir.clone());
        folder.unwrap_or_else(|| PathBuf::from(".flowrun/runs"))
    }
}

/// Why a command ends with exit code 2: something to show, and what to do.
enum Refusal {
    /// A line, with help.
    Line(String, Vec<String>),
    /// Problems of a file.
    File(LoadError),
    /// A text that stands by itself.
    Text(String),
}

impl From<LoadError> for Refusal {
    fn from(error: LoadError) -> Self {
        Refusal::File(error)
    }
}

impl From<String> for Refusal {
    fn from(message: String) -> Self {
        Refusal::Line(message, Vec::new())
    }
}

impl From<flowrun::ConfigError> for Refusal {
    fn from(error: flowrun::ConfigError) -> Self {
        let help = match error {
            flowrun::ConfigError::UnknownModel { .. } => vec![
                "`--model openai:NAME` asks the server at OPENAI_BASE_URL, `--model scripted:FILE` reads replies from a file"
                    .to_owned(),
            ],
            _ => Vec::new(),
        };
        Refusal::Line(error.to_string(), help)
    }
}

/// Runs the command that the arguments name.
pub(crate) fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    let code = dispatch(arguments.command).unwrap_or_else(|refusal| {
        match refusal {
            Refusal::Line(message, help) => {
                output::error(&message);
                help.iter().for_each(|line| output::help(line));
            }
            Refusal::File(error) => {
                let sources: Vec<_> = error.source.iter().collect();
                output::say_raw(&report::render(&error.diagnostics, &sources, Styled::stderr()));
            }
            Refusal::Text(text) => output::say(&text),
        }
        2
    });
    ExitCode::from(code)
}

fn config() -> Result<Config, Refusal> {
    Ok(Config::read(std::path::Path::new("."), |name| std::env::var(name).ok())?)
}

fn dispatch(command: Command) -> Result<u8, Refusal> {
    match command {
        Command::Ask { question, options } => {
            run::run("@question-graph", vec![("question".to_owned(), question)], None, &options)
        }
        Command::Run { workflow, inputs, input_file, options } => {
            run::run(&workflow, inputs, input_file.as_deref(), &options)
        }
        Command::Check { files, format } => check::check(&files, format),
        Command::Graph { workflow } => graph::graph(&workflow),
        Command::Trace { run, step, format, prompts, place } => {
            trace::trace(&place.folder(&config()?), &run, step.as_deref(), format, prompts)
        }
        Command::Runs { json, place } => runs::runs(&place.folder(&config()?), json),
        Command::List => library::list(),
        Command::Show { name } => library::show(&name),
        Command::Models => models::models(config()?),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "flowrun", &mut text);
            output::data(&String::from_utf8_lossy(&text));
            Ok(0)
        }
    }
}

/// The text of a workflow: a file, `-` for stdin, or `@NAME`.
fn read_workflow(reference: &str) -> Result<String, Refusal> {
    Ok(flowrun::Workflows::read(reference)?)
}

/// An async runtime for commands that call models.
fn runtime() -> Result<tokio::runtime::Runtime, Refusal> {
    tokio::runtime::Runtime::new().map_err(|error| format!("the program could not start its threads: {error}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}
