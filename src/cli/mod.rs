//! The command line: one file per command. Answers go to standard output, everything else to standard error.

mod bench;
mod cache;
mod check;
mod compare;
mod corrections;
mod cost;
mod db;
mod draw;
mod drive;
mod export;
mod kept;
mod library;
mod models;
mod people;
mod progress;
mod replay;
mod resume;
mod run;
mod runs;
mod screen;
mod seen;
mod shell;
mod show;
mod trace;
mod units;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueHint};

use db::DbArgs;

/// Wrong usage, or a file that does not check.
const REFUSED: u8 = 2;

/// Reasoning as execution of a graph: a question becomes a graph of sub-questions that a language model answers.
#[derive(Debug, Parser)]
#[command(name = "flowrun", version, max_term_width = 110, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  flowrun ask \"Which is older, the Eiffel Tower or the Empire State Building, and by how many years?\"
  flowrun run @self-consistency --input question=\"What is 17 * 23?\" --input n=7
  flowrun run my.yaml --input-file inputs.yaml --json
  flowrun check my.yaml && flowrun graph my.yaml
  flowrun trace last --prompts

Exit codes: 0 success, 1 failed, 2 wrong usage or a file that does not check, 3 a budget or limit was used up, 4 cancelled, \
5 waits for a person's answer.";

const REPLAY_EXAMPLES: &str = "\
Examples:
  flowrun replay last --set answer.prompt='In one word: {{ question }}'
  flowrun replay last --correct 'facts[2]=Lisbon'
  flowrun replay last --file changed.yaml --model answer=openai:gpt-5-mini";

const DIFF_EXAMPLES: &str = "\
Examples:
  flowrun diff 20261126-0707 last
  flowrun diff 20261126-0707 last answer --all

Exit codes: 0 the same outcome (with STEP: the step is the same), 1 another one, 2 wrong usage.";

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  flowrun explain last answer
  flowrun explain last facts[2] --json";

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer a question: `run @question-graph --input question=…`
    Ask {
        /// The question
        question: String,
        #[command(flatten)]
        options: RunArgs,
    },
    /// Run a workflow
    Run {
        /// A file, `-` for standard input, or `@NAME` of the library
        #[arg(value_hint = ValueHint::FilePath)]
        workflow: String,
        #[command(flatten)]
        options: RunArgs,
    },
    /// Go on with a run that was interrupted, or waits for a person
    ///
    /// Steps that finished do not run again, steps that were in flight do. The workflow must be the one that the run began with.
    Resume {
        /// `last` (that can go on), or a run's id or its unique beginning
        #[arg(default_value = "last")]
        run: String,
        #[command(flatten)]
        options: drive::DriveArgs,
    },
    /// Answer a step that waits for a person
    ///
    /// The process that drives the run takes the answer; if there is none, this one drives it on.
    Answer {
        /// `last`, or a run's id or its unique beginning
        run: String,
        /// The step's path, as `flowrun trace` shows it
        step: String,
        /// The answer: a text as it is, `yes` or `no`, other types as JSON
        value: String,
        #[command(flatten)]
        options: drive::DriveArgs,
    },
    /// Run a run again with changes: every answer whose question is the same is taken over
    ///
    /// It becomes a run of its own; the old one stays as it is. `--model NODE=MODEL` is for one node and may be given several
    /// times, `--model MODEL` for all nodes without a model of their own.
    #[command(after_help = REPLAY_EXAMPLES)]
    Replay {
        /// `last`, or a run's id or its unique beginning
        run: String,
        #[command(flatten)]
        options: Box<replay::ReplayArgs>,
    },
    /// Check workflow files; warnings are shown and accepted
    Check {
        /// Files, `-` or `@NAME`
        #[arg(required = true, value_hint = ValueHint::FilePath)]
        files: Vec<String>,
        /// How problems are shown: for people, or one JSON object a line for editors
        #[arg(long, value_enum, default_value = "text")]
        format: check::Format,
        /// Say what a run costs at most, as formulas and under the limits
        #[arg(long)]
        cost: bool,
        #[command(flatten)]
        inputs: InputArgs,
    },
    /// Draw a workflow
    Graph {
        /// A file, `-` or `@NAME`
        #[arg(value_hint = ValueHint::FilePath)]
        workflow: String,
        /// How it is drawn
        #[arg(long, value_enum, default_value = "text")]
        format: draw::Format,
    },
    /// Show how a run went
    Trace {
        /// `last`, or a run's id or its unique beginning
        #[arg(default_value = "last")]
        run: String,
        /// Only this step and what is below it
        step: Option<String>,
        /// How it is shown
        #[arg(long, value_enum, default_value = "tree")]
        format: trace::Format,
        /// Show prompts and replies too
        #[arg(long)]
        prompts: bool,
        #[command(flatten)]
        place: DbArgs,
    },
    /// List recorded runs, show all about one, remove them, look for damage
    Runs(runs::RunsArgs),
    /// Write a run as JSON lines: who it is, its events, its values
    Export {
        /// `last`, or a run's id or its unique beginning
        #[arg(default_value = "last")]
        run: String,
        /// The values too, each before the first event that names it
        #[arg(long)]
        values: bool,
        #[command(flatten)]
        place: DbArgs,
    },
    /// Compare two runs: the first step that went another way, what differs, the outputs and what each cost
    ///
    /// Steps are matched by path. The first difference is the first event of B's log that decides something otherwise than A did: a
    /// guard, a list of items, a route, an input, what a key was made of, an outcome.
    #[command(after_help = DIFF_EXAMPLES)]
    Diff {
        /// The first run: `last`, or an id or its unique beginning
        a: String,
        /// The second run
        b: String,
        /// Only this step: its input, key and value in both runs
        step: Option<String>,
        /// One JSON object instead of a text for people
        #[arg(long)]
        json: bool,
        /// Every step, those that are equal too, and texts at any length
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        place: DbArgs,
    },
    /// Say why a step ran, was skipped, failed, waits, or was answered without a call
    ///
    /// Each sentence names the events of the log that it is read from. If the step asked for itself, the nearest earlier question
    /// is named, and every part of the key that changed since.
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain {
        /// `last`, or a run's id or its unique beginning
        run: String,
        /// The step's path, as `flowrun trace` shows it: `answer`, `facts[2]`, `draft#1`
        step: String,
        /// One JSON object instead of a text for people
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: DbArgs,
    },
    /// Look at the answers that are kept for other runs, and forget them
    #[command(subcommand)]
    Cache(cache::CacheCommand),
    /// List the workflows of the library
    List,
    /// Print a workflow of the library
    Show {
        /// `@NAME`
        name: String,
    },
    /// Show which models are configured, and try each
    Models {
        /// Try this one: an alias, `openai:NAME`, `scripted:FILE` or `recorded:FILE`
        #[arg(long)]
        model: Option<String>,
    },
    /// Time the engine on a synthetic workload
    ///
    /// W1: a chain of n nodes. W2: one node, n beside each other, one. W3: n nodes in 20 layers with up to three dependencies
    /// each. W4: one node, run n times by an edge back to it. W5: branches of unequal depth, 100 ms each. W6: n runs at once of a chain of
    /// five nodes of 50 ms. W7: a chain of n nodes, recorded in a database step by step. W8: one node, with the time at which it began.
    Bench(bench::BenchArgs),
    /// Print the JSON Schema of workflow files, for editors
    Schema,
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write the pages of all commands
    Man {
        /// Folder for the pages: `flowrun.1`, `flowrun-run.1`, …
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        folder: Option<PathBuf>,
    },
}

/// Inputs of a workflow.
#[derive(Args, Debug)]
struct InputArgs {
    /// An input: texts as they are, other types as JSON
    #[arg(long, value_name = "NAME=VALUE")]
    input: Vec<String>,
    /// Inputs from a JSON or YAML file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    input_file: Option<PathBuf>,
}

/// Options of `ask` and `run`.
#[derive(Args, Debug)]
struct RunArgs {
    #[command(flatten)]
    inputs: InputArgs,
    /// Most model calls of the run
    #[arg(long, value_name = "N")]
    max_calls: Option<u64>,
    /// Ask anew: take no answer that an earlier run has paid for
    #[arg(long)]
    fresh: bool,
    /// Record nothing
    #[arg(long)]
    no_record: bool,
    #[command(flatten)]
    drive: drive::DriveArgs,
}

/// The commands and options, as data: manual pages and completions are made of it, and the tests of the docs read it.
pub fn definition() -> clap::Command {
    Cli::command()
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::builder().with_default_directive(tracing::Level::ERROR.into());
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter.from_env_lossy()).with_writer(io::stderr);
    let _already_set = subscriber.try_init();
    let cli = Cli::try_parse().unwrap_or_else(|error| usage_error(error));
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&format!("the runtime cannot start: {error}")),
    };
    let task = runtime.spawn(dispatch(cli.command));
    let code = runtime.block_on(task).unwrap_or_else(|error| refuse(&format!("BUG: {error}")));
    runtime.shutdown_background();
    code
}

/// Wrong usage; a workflow where a command should stand gets the command.
fn usage_error(error: clap::Error) -> ! {
    let word = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(word)) if error.kind() == ErrorKind::InvalidSubcommand => word,
        _ => error.exit(),
    };
    let is_workflow = word.starts_with('@') || word.ends_with(".yaml") || word.ends_with(".yml");
    if is_workflow || Path::new(word).is_file() {
        refuse(&format!("`{word}` is no command\nhelp: write `flowrun run {word}`"));
        std::process::exit(i32::from(REFUSED));
    }
    error.exit()
}

/// A file that may not grow any more is an error like a full disk, where the system would end the process.
#[cfg(unix)]
fn bear_full_files() {
    let signal = tokio::signal::unix::SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
    // Once it is listened to it stays so.
    let _listening = tokio::signal::unix::signal(signal);
}

#[cfg(not(unix))]
fn bear_full_files() {}

async fn dispatch(command: Command) -> ExitCode {
    bear_full_files();
    match command {
        Command::Ask { question, mut options } => {
            options.inputs.input.insert(0, format!("question={question}"));
            run::run("@question-graph", options).await
        }
        Command::Run { workflow, options } => run::run(&workflow, options).await,
        Command::Resume { run, options } => resume::resume(&run, options).await,
        Command::Answer { run, step, value, options } => resume::answer(&run, &step, &value, options).await,
        Command::Replay { run, options } => replay::replay(&run, *options).await,
        Command::Check { files, format, cost, inputs } => {
            if !cost && (!inputs.input.is_empty() || inputs.input_file.is_some()) {
                return refuse(
                    "inputs change nothing about a check\nhelp: `--cost` says what a run with them costs at most",
                );
            }
            check::check(&files, format, cost.then_some(&inputs))
        }
        Command::Graph { workflow, format } => draw::draw(&workflow, format),
        Command::Trace { run, step, format, prompts, place } => {
            trace::trace(&run, step.as_deref(), format, prompts, &place)
        }
        Command::Diff { a, b, step, json, all, place } => compare::diff(&a, &b, step.as_deref(), json, all, &place),
        Command::Explain { run, step, json, place } => compare::explain(&run, &step, json, &place),
        Command::Runs(args) => runs::runs(args),
        Command::Export { run, values, place } => export::export(&run, values, &place),
        Command::Cache(command) => cache::cache(command),
        Command::List => library::list(),
        Command::Show { name } => library::show(&name),
        Command::Models { model } => models::models(model.as_deref()).await,
        Command::Bench(args) => bench::bench(args).await,
        Command::Schema => shell::schema(),
        Command::Completions { shell } => shell::completions(shell),
        Command::Man { folder } => shell::man(folder.as_deref()),
    }
}

/// Writes to standard output; a reader that has gone away is no error.
fn print(text: &str) -> ExitCode {
    match io::stdout().lock().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => refuse(&format!("standard output: {error}")),
        _ => ExitCode::SUCCESS,
    }
}

/// Writes text with signs of states and bars to standard output, in colour on a terminal that wants it.
fn print_painted(text: &str) -> ExitCode {
    let mut plain = Vec::new();
    let choice = anstream::AutoStream::choice(&io::stdout());
    match anstream::AutoStream::new(&mut plain, choice).write_all(paint(text).as_bytes()) {
        Ok(()) => print(&String::from_utf8_lossy(&plain)),
        Err(error) => refuse(&format!("BUG: {error}")),
    }
}

/// Gives the signs that views use their colours; nothing is said by colour alone.
fn paint(text: &str) -> String {
    let style = |c: char| match c {
        '✓' => Some(AnsiColor::Green.on_default()),
        '✗' => Some(AnsiColor::Red.on_default()),
        '█' => Some(AnsiColor::Yellow.on_default()),
        '▒' | '▁'..='▇' => Some(AnsiColor::Cyan.on_default()),
        '·' | '~' | '■' | '├' | '─' | '┤' | '┼' => Some(Style::new().dimmed()),
        _ => None,
    };
    let mut painted = String::new();
    let mut current = None;
    for c in text.chars() {
        let next = style(c);
        if next != current {
            painted.push_str(&current.map(|style: Style| style.render_reset().to_string()).unwrap_or_default());
            painted.push_str(&next.map(|style| style.render().to_string()).unwrap_or_default());
            current = next;
        }
        painted.push(c);
    }
    painted
}

/// Writes a line to standard error.
fn say(text: &str) {
    // Without anybody to read it there is nothing left to say.
    let _gone = writeln!(anstream::stderr(), "{text}");
}

/// Writes a line to standard error that is to be completed at the keyboard.
fn write_prompt(text: &str) {
    let mut terminal = anstream::stderr();
    let _gone = write!(terminal, "{text}").and_then(|()| terminal.flush());
}

fn refuse(message: &str) -> ExitCode {
    say(&format!("error: {message}"));
    ExitCode::from(REFUSED)
}

/// Width of the terminal; where standard output is none, what `COLUMNS` says, or 100.
fn width() -> usize {
    let said = || std::env::var("COLUMNS").ok()?.trim().parse().ok();
    let said: Option<usize> = if io::stdout().is_terminal() { None } else { said() };
    let terminal = || terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
    said.or_else(terminal).unwrap_or(100).clamp(20, 1_000)
}
