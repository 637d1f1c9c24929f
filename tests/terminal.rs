//! The live view on a real pseudo-terminal: what stands on the screen while a run goes on, and what stays when it ended.
//!
//! Nothing here counts on time: each test waits until it sees what it waits for, for a minute at most.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use tempfile::TempDir;

const REPLIES: &str = r#"
- {match: "quick", reply: "a reply of several words that are told in one line of the view, and more"}
- {match: "broken", status: 400, reply: "no such thing"}
- {match: "slow", reply: late, delay_ms: 600000}
- {match: "loud", reply: "one\e[2J\e]0;title\atwo\n\tthree"}
- {match: "soon", reply: ok, delay_ms: 3}
"#;

/// A workflow that runs in a terminal.
struct Terminal {
    folder: TempDir,
    master: Box<dyn MasterPty + Send>,
    /// Kept, because one that is dropped presses Enter and Ctrl-D.
    keyboard: Mutex<Box<dyn Write + Send>>,
    child: Box<dyn Child + Send + Sync>,
    screen: Arc<Mutex<Seen>>,
    reading: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

struct Seen {
    parser: vt100::Parser,
    bytes: usize,
    /// A screen of the live view on which a line was broken, as it was.
    broken: Option<String>,
}

impl Seen {
    fn take(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        self.parser.process(bytes);
        let screen = self.parser.screen();
        let live = screen.contents().contains(" running");
        if live && (0..screen.size().0).any(|row| screen.row_wrapped(row)) {
            self.broken = Some(screen.contents());
        }
    }

    /// Everything that was ever on the screen and not erased.
    fn all(&mut self) -> String {
        let (rows, _) = self.parser.screen().size();
        self.parser.screen_mut().set_scrollback(usize::MAX);
        let mut text = String::new();
        loop {
            let above = self.parser.screen().scrollback();
            let contents = self.parser.screen().contents();
            let lines = contents.lines().chain(std::iter::repeat("")).take(usize::from(rows).min(above.max(1)));
            if above == 0 {
                return text + &contents;
            }
            lines.for_each(|line| text.push_str(&format!("{line}\n")));
            self.parser.screen_mut().set_scrollback(above.saturating_sub(usize::from(rows)));
        }
    }
}

impl Terminal {
    fn start(workflow: &str, columns: u16, rows: u16, more: &[&str], environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("w.yaml"), workflow).unwrap();
        fs::write(folder.path().join("replies.yaml"), REPLIES).unwrap();
        let size = PtySize { rows, cols: columns, ..PtySize::default() };
        let pair = native_pty_system().openpty(size).unwrap();
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_flowrun"));
        command.args(["run", "w.yaml"]);
        command.args(more);
        command.cwd(folder.path());
        for name in ["OPENAI_BASE_URL", "OPENAI_API_KEY", "FLOWRUN_MODEL", "RUST_LOG", "NO_COLOR"] {
            command.env_remove(name);
        }
        command.env("TERM", "xterm-256color");
        command.env("FLOWRUN_MODEL", "scripted:replies.yaml");
        environment.iter().for_each(|(name, value)| command.env(name, value));
        let child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let seen = Seen { parser: vt100::Parser::new(rows, columns, 20_000), bytes: 0, broken: None };
        let (screen, reading) = (Arc::new(Mutex::new(seen)), Arc::new(AtomicBool::new(true)));
        let mut source = pair.master.try_clone_reader().unwrap();
        let (into, may_read) = (screen.clone(), reading.clone());
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                while !may_read.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                match source.read(&mut buffer) {
                    Ok(0) | Err(_) => return,
                    Ok(read) => into.lock().unwrap().take(&buffer[..read]),
                }
            }
        });
        let keyboard = Mutex::new(pair.master.take_writer().unwrap());
        Self { folder, master: pair.master, keyboard, child, screen, reading, reader: Some(reader) }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.screen.lock().unwrap()
    }

    /// Waits until the screen is as it should be, and gives it.
    fn wait_for(&self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        eventually(what, || {
            let contents = self.seen().parser.screen().contents();
            if holds(&contents) { Ok(contents) } else { Err(contents) }
        })
    }

    fn resize(&self, columns: u16, rows: u16) {
        let mut seen = self.seen();
        self.master.resize(PtySize { rows, cols: columns, ..PtySize::default() }).unwrap();
        seen.parser.screen_mut().set_size(rows, columns);
    }

    /// Types at the keyboard.
    fn types(&self, text: &str) {
        self.keyboard.lock().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Presses Ctrl-C.
    fn interrupt(&self) {
        self.keyboard.lock().unwrap().write_all(b"\x03").unwrap();
    }

    /// The log of the run so far, without the numbers of steps.
    fn events(&self) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowrun"));
        let output =
            command.args(["trace", "--format", "jsonl"]).current_dir(self.folder.path()).env_remove("FLOWRUN_DB");
        let log = String::from_utf8(output.output().unwrap().stdout).unwrap();
        let bare = |line: &str| match line.split_once(",\"id\":") {
            Some((before, rest)) => format!("{before}{}\n", rest.trim_start_matches(|c: char| c.is_ascii_digit())),
            None => format!("{line}\n"),
        };
        log.lines().map(bare).collect()
    }

    /// Waits for the end: the exit code, and all that was left on the terminal.
    fn end(mut self) -> (u32, String) {
        let code = eventually("the end of the process", || match self.child.try_wait().unwrap() {
            Some(status) => Ok(status.exit_code()),
            None => Err(String::new()),
        });
        self.reader.take().unwrap().join().unwrap();
        let mut seen = self.seen();
        let all = seen.all();
        assert_eq!(seen.broken, None, "a line of the live view is longer than the terminal is wide");
        assert!(!all.contains(" running") && !all.contains(" waiting"), "the live view was left behind:\n{all}");
        (code, all)
    }
}

/// Tries until it works, for a minute at most.
fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match attempt() {
            Ok(found) => return found,
            Err(state) if Instant::now() > deadline => panic!("waited in vain for {what}:\n{state}"),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// A few steps that end at once, and some that do not.
fn mixed(slow: usize) -> String {
    format!(
        "flowrun: 1\nnodes:\n  first: {{prompt: quick}}\n  risky: {{prompt: broken, on_error: skip}}\n  never: {{when: \"false\", prompt: \"{{{{ first }}}}\"}}\n  \
         hanging: {{for_each: range({slow}), prompt: \"slow {{{{ item }}}} {{{{ first }}}}\"}}\n  after: {{prompt: \"quick {{{{ hanging }}}} {{{{ risky }}}}\"}}\noutput: {{a: after, n: never | default(none)}}\n"
    )
}

#[test]
fn running_steps_and_counts_stand_below_the_finished_steps() {
    let terminal = Terminal::start(&mixed(3), 80, 24, &[], &[]);
    let screen = terminal.wait_for("the running steps", |screen| screen.contains("3 running, 1 waiting"));
    let lines: Vec<&str> = screen.lines().collect();
    let line =
        |text: &str| lines.iter().position(|line| line.starts_with(text)).unwrap_or_else(|| panic!("{text}: {screen}"));
    assert!(line("✓ first  ").max(line("✗ risky")).max(line("- never  skipped")) < line("… hanging[0]  "), "{screen}");
    assert!(line("… hanging[0]") < line("… hanging[1]") && line("… hanging[2]") < line("3 running"), "{screen}");
    let status = lines[line("3 running")];
    assert!(status.starts_with("3 running, 1 waiting, 1 done, 1 skipped, 1 failed, 2 calls"), "{status}");
    assert!(screen.trim_end().ends_with(" s"), "{screen}");
    terminal.interrupt();
    let (code, all) = terminal.end();
    assert_eq!(code, 4, "{all}");
    assert!(all.contains("✓ first") && all.contains("✗ risky") && all.contains("cancelling; press Ctrl-C"), "{all}");
    assert!(!all.contains("hanging["), "{all}");
    assert!(all.trim_end().lines().last().unwrap().contains(": cancelled, "), "{all}");
}

#[test]
fn the_view_fits_a_small_terminal_and_survives_a_resize() {
    let terminal = Terminal::start(&mixed(30), 40, 12, &["--max-parallel", "30"], &[]);
    let small = |screen: &str| screen.contains("30 running, 1 waiting");
    let shown = |screen: &str| screen.lines().filter(|line| line.starts_with("… hanging[")).count();
    let screen = terminal.wait_for("the small view", small);
    assert!(shown(&screen) >= 4 && shown(&screen) <= 8, "{screen}");
    assert!(screen.contains("… hanging[0]") && !screen.contains("hanging[29]"), "{screen}");
    terminal.resize(120, 50);
    let screen = terminal.wait_for("the large view", |screen| shown(screen) == 30);
    assert!(screen.lines().any(|line| line.starts_with("30 running") && line.ends_with(" s")), "{screen}");
    terminal.resize(60, 50);
    terminal.wait_for("the narrow view", |screen| screen.contains("\n30 running, 1 waiting, 1 done, 1 skipped\n"));
    terminal.interrupt();
    let (code, all) = terminal.end();
    assert_eq!(code, 4, "{all}");
    assert_eq!(all.matches("✓ first").count(), 1, "{all}");
}

#[test]
fn a_thousand_steps_neither_flood_nor_get_lost() {
    let workflow =
        "flowrun: 1\nnodes:\n  a: {for_each: range(1000), prompt: \"soon {{ item }}\"}\noutput: a | length\n";
    let terminal = Terminal::start(workflow, 40, 12, &[], &[]);
    let (code, all) = terminal.end();
    assert_eq!(code, 0, "{all}");
    let steps = all.lines().filter(|line| line.starts_with("✓ a[")).count();
    let more = all.lines().filter_map(|line| line.strip_prefix("… and ")?.strip_suffix(" more")?.parse::<usize>().ok());
    assert_eq!(steps + more.sum::<usize>(), 1_000, "{all}");
    assert!(all.contains("\n1000\n") && all.contains(": success, 1,000 calls"), "{all}");
}

#[test]
fn what_a_model_says_is_shown_as_it_comes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let go_on = Arc::new(AtomicBool::new(false));
    let seen = go_on.clone();
    let server = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"}") {
            let mut buffer = [0; 4096];
            let read = socket.read(&mut buffer).unwrap();
            request.extend_from_slice(&buffer[..read]);
        }
        let event = |text: &str| format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n");
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
        let long = "東京は日本の首都です。".repeat(30);
        socket.write_all((head.to_owned() + &event(&long) + &event("\\u001b[2J終わり")).as_bytes()).unwrap();
        while !seen.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        socket.write_all((event(" fin") + "data: [DONE]\n\n").as_bytes()).unwrap();
    });
    let workflow = "flowrun: 1\nnodes:\n  tale: {prompt: tell}\noutput: tale | length\n";
    let environment = [("OPENAI_BASE_URL", url.as_str()), ("FLOWRUN_MODEL", "openai:m")];
    let terminal = Terminal::start(workflow, 40, 12, &[], &environment);
    let screen = terminal.wait_for("the text", |screen| screen.contains("終わり"));
    let line = screen.lines().find(|line| line.starts_with("… tale  ")).unwrap();
    assert!(line.contains("です。 [2J終わり"), "{screen}");
    go_on.store(true, Ordering::SeqCst);
    let (code, all) = terminal.end();
    server.join().unwrap();
    assert_eq!(code, 0, "{all}");
    assert!(all.contains("✓ tale") && all.contains(": success, 1 call"), "{all}");
}

#[cfg(unix)]
#[test]
fn a_terminal_that_takes_nothing_holds_up_neither_the_run_nor_its_end() {
    let workflow = "flowrun: 1\nnodes:\n  a: {for_each: range(3000), prompt: \"quick {{ item }}\"}\n  b: {prompt: \"slow {{ a }}\"}\noutput: b\n";
    let terminal = Terminal::start(workflow, 100, 1_000, &[], &[]);
    terminal.reading.store(false, Ordering::SeqCst);
    let saw = |what: &str| {
        eventually(what, || if terminal.events().contains(what) { Ok(()) } else { Err(String::new()) });
    };
    saw(r#""step":"b","type":"started""#);
    let pid = terminal.child.process_id().unwrap().to_string();
    let kill = || assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    kill();
    saw(r#""type":"run_ended""#);
    kill();
    // Nothing of the view can be taken off a terminal like this.
    let mut child = terminal.child;
    let code =
        eventually("the end", || child.try_wait().unwrap().map(|status| status.exit_code()).ok_or(String::new()));
    assert_eq!(code, 130);
    terminal.reading.store(true, Ordering::SeqCst);
}

#[test]
fn colour_is_left_out_where_it_is_not_wanted() {
    let workflow = "flowrun: 1\nnodes:\n  a: {prompt: quick}\noutput: a\n";
    let check = |environment: &[(&str, &str)], expected: vt100::Color| {
        let terminal = Terminal::start(workflow, 80, 24, &["--no-record"], environment);
        let screen = terminal.screen.clone();
        let (code, all) = terminal.end();
        assert!(code == 0 && all.starts_with("✓ a  "), "{all}");
        assert_eq!(screen.lock().unwrap().parser.screen().cell(0, 0).unwrap().fgcolor(), expected);
    };
    check(&[], vt100::Color::Idx(2));
    check(&[("NO_COLOR", "1")], vt100::Color::Default);
}

#[test]
fn an_answer_does_not_command_the_terminal() {
    let terminal = Terminal::start("flowrun: 1\nnodes: {a: {prompt: loud}}\noutput: a\n", 80, 24, &["--quiet"], &[]);
    let (code, all) = terminal.end();
    assert_eq!((code, all.trim_end()), (0, "one [2J ]0;title two\n        three"), "{all}");
}

#[test]
fn a_terminal_without_control_gets_plain_lines() {
    let workflow = "flowrun: 1\nnodes:\n  a: {prompt: quick}\noutput: a\n";
    let terminal = Terminal::start(workflow, 80, 24, &["--no-record"], &[("TERM", "dumb")]);
    let (code, all) = terminal.end();
    assert!(code == 0 && all.starts_with("✓ a  "), "{all}");
}

/// Two people are asked while something else runs.
const ASKS: &str = "flowrun: 1\nnodes:\n  colour: {kind: human, prompt: \"Which colour?\\n\\e[2J(of two)\", schema: red | dark blue}\n  \
    sure: {kind: human, prompt: \"Is {{ colour }} right?\", schema: boolean}\n  done: {prompt: \"quick {{ sure }}\"}\n  other: {prompt: soon}\n\
    output: {colour: colour, sure: sure}\n";

#[test]
fn a_person_is_asked_at_the_terminal() {
    let terminal = Terminal::start(ASKS, 80, 24, &[], &[]);
    let screen = terminal.wait_for("the question", |screen| screen.contains("a number from 1 to 2>"));
    let question = "? colour asks:\n  Which colour?\n   [2J(of two)\n  1. red\n  2. dark blue\na number from 1 to 2>";
    assert!(screen.contains(question) && !screen.contains(" running"), "{screen}");
    terminal.types("3\n");
    terminal.wait_for("the reason", |screen| screen.contains("\n  a number from 1 to 2, or the text itself\n"));
    eventually("the end of the other step", || {
        let ended = |line: &str| line.contains(r#""step":"other","type":"ended""#);
        if terminal.events().lines().any(ended) { Ok(()) } else { Err(terminal.events()) }
    });
    terminal.types("2\n");
    terminal.wait_for("the next question", |screen| screen.contains("  Is dark blue right?\nyes or no>"));
    terminal.types("y\n");
    let (code, all) = terminal.end();
    assert_eq!(code, 0, "{all}");
    assert!(all.contains("✓ other") && all.contains("✓ done"), "{all}");
    assert!(all.contains("{\"colour\":\"dark blue\",\"sure\":true}"), "{all}");
}

#[test]
fn the_view_steps_aside_for_a_question_and_comes_back() {
    let workflow =
        "flowrun: 1\nnodes:\n  never: {prompt: slow}\n  ask: {kind: human, prompt: Why?}\noutput: {n: never, a: ask}\n";
    let terminal = Terminal::start(workflow, 80, 24, &[], &[]);
    let screen = terminal.wait_for("the question", |screen| screen.contains("  Why?\na text>"));
    assert!(!screen.contains(" running"), "{screen}");
    terminal.types("because\n");
    let screen = terminal.wait_for("the view", |screen| screen.contains("1 running, 0 waiting"));
    assert!(screen.contains("a text> because\n"), "{screen}");
    terminal.interrupt();
    let (code, all) = terminal.end();
    assert_eq!(code, 4, "{all}");
}

#[test]
fn a_person_who_leaves_suspends_the_run() {
    let terminal = Terminal::start(ASKS, 80, 24, &[], &[]);
    terminal.wait_for("the question", |screen| screen.contains("a number from 1 to 2>"));
    terminal.types("\x04");
    let (code, all) = terminal.end();
    assert_eq!(code, 5, "{all}");
    assert!(all.contains("step `colour` asks for `red` or `dark blue`:") && all.contains(": suspended, "), "{all}");
    let cancelled = Terminal::start(ASKS, 80, 24, &[], &[]);
    cancelled.wait_for("the question", |screen| screen.contains("a number from 1 to 2>"));
    cancelled.interrupt();
    let (code, all) = cancelled.end();
    assert!(code == 4 && all.contains(": cancelled, "), "{all}");
    let unasked = Terminal::start(ASKS, 80, 24, &["--no-input"], &[]);
    let (code, all) = unasked.end();
    assert!(code == 5 && all.contains("step `colour` asks") && !all.contains("to 2>"), "{all}");
}

#[test]
fn a_question_that_is_no_longer_asked_is_not_answered() {
    let workflow = "flowrun: 1\nnodes:\n  brief: {kind: human, prompt: Quick?, schema: integer, timeout: 2s, default: \"7\"}\n  \
        late: {kind: human, prompt: Late?, schema: integer, timeout: 2s, default: \"8\"}\n  third: {kind: human, prompt: \"Third {{ brief }}{{ late }}?\"}\noutput: third\n";
    let terminal = Terminal::start(workflow, 80, 24, &[], &[]);
    terminal.wait_for("the first question", |screen| screen.contains("  Quick?\na whole number>"));
    eventually("the third question", || {
        if terminal.events().contains(r#""step":"third","type":"suspended""#) { Ok(()) } else { Err(terminal.events()) }
    });
    terminal.types("nothing\n");
    let screen = terminal.wait_for("the third question", |screen| screen.contains("  Third 78?\na text>"));
    assert!(screen.contains("  `brief` does not wait for an answer\n") && !screen.contains("Late?"), "{screen}");
    terminal.types("done\n");
    let (code, all) = terminal.end();
    assert!(code == 0 && all.contains("\ndone\n"), "{all}");
}
