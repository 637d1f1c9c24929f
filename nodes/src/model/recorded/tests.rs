//! Recordings that are played: the order of answers, what is missing, and how long it takes (on a clock that is turned by hand).

use flowrun_engine::event::Usage;
use flowrun_engine::failure::ErrorClass;
use flowrun_engine::node::TokenSink;
use flowrun_engine::observer::{Observer, Observers};
use indexmap::IndexMap;
use tempfile::TempDir;
use tokio::time::Instant;

use super::super::{Message, Recorder, Role, Scripted};
use super::*;

/// Keeps the pieces of text that a call sends, with the milliseconds at which they come.
struct Pieces(Instant, Mutex<Vec<(u128, String)>>);

impl Observer for Pieces {
    fn tokens(&self, _: &str, text: &str) {
        self.1.lock().unwrap().push((self.0.elapsed().as_millis(), text.to_owned()));
    }
}

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("calls.jsonl")
    }

    /// Records what a script says to the questions.
    async fn record(&self, script: &str, asked: &[(&str, Option<u32>)]) -> Vec<Result<ChatReply, StepError>> {
        let model = Recorder::new(Scripted::parse("script", script).unwrap(), &self.path()).unwrap();
        let mut given = Vec::new();
        for (text, sample) in asked {
            let context = CallContext { sample: *sample, ..CallContext::default() };
            given.push(model.chat(&request(text), &context).await);
        }
        given
    }

    fn open(&self) -> Recorded {
        Recorded::open(&self.path()).unwrap()
    }
}

fn request(text: &str) -> ChatRequest {
    let params = IndexMap::from([("temperature".to_owned(), json!(0.7))]);
    ChatRequest { messages: vec![Message::new(Role::User, text)], params, json_schema: Some(json!({"type": "object"})) }
}

async fn ask(model: &Recorded, text: &str, sample: Option<u32>) -> Result<String, String> {
    let context = CallContext { sample, ..CallContext::default() };
    model.chat(&request(text), &context).await.map(|reply| reply.text).map_err(|error| error.message.clone())
}

const COUNTS: &str = "- {match: count, reply: one, times: 1}\n- {match: count, reply: two, times: 1}\n- {match: count, status: 503, reply: busy}\n- {reply: else}\n";

#[tokio::test]
async fn what_was_recorded_is_played_in_order_and_once() {
    let place = Place::new();
    let asked = [("count", None), ("other", None), ("count", None), ("count", None), ("count", Some(1))];
    let given = place.record(COUNTS, &asked).await;
    let model = place.open();
    assert_eq!((model.calls(), model.models()), (5, vec!["scripted:script"]));
    for _ in 0..2 {
        for (number, (text, sample)) in asked.iter().enumerate() {
            let context = CallContext { sample: *sample, ..CallContext::default() };
            assert_eq!(model.chat(&request(text), &context).await, given[number]);
        }
        let problem = ask(&model, "count", None).await.unwrap_err();
        assert!(problem.contains("has 3 answers to this request, which were all given already"), "{problem}");
        let problem = ask(&model, "other", None).await.unwrap_err();
        assert!(problem.contains("has one answer to this request, which was given already"), "{problem}");
        model.rewind();
    }
    let usage = given[0].as_ref().unwrap().usage;
    assert_eq!(usage, Usage { calls: 1, prompt_tokens: 1, completion_tokens: 1 });
    assert_eq!(given[2].as_ref().map(|reply| reply.text.as_str()), Ok("two"));
    let error = given[3].as_ref().unwrap_err();
    assert_eq!((error.code.as_str(), error.class), ("http_503", ErrorClass::Server));
}

#[tokio::test]
async fn what_was_not_recorded_shows_the_nearest() {
    let place = Place::new();
    place.record("- {reply: x}", &[("Name a town\nin the north of Spain.", None), ("Name a river.", Some(2))]).await;
    let model = place.open();
    let miss = async |change: fn(&mut ChatRequest), text: &str, sample: Option<u32>| {
        let mut request = request(text);
        change(&mut request);
        let context = CallContext { sample, ..CallContext::default() };
        let error = model.chat(&request, &context).await.unwrap_err();
        assert_eq!((error.code.as_str(), error.class), ("no_recording", ErrorClass::Terminal));
        let (_, said) = error.message.split_once("the nearest one is on its ").unwrap();
        said.strip_suffix("; record the run again with `--record FILE`").unwrap().to_owned()
    };
    let town = "Name a town\nin the north of Spain.";
    assert_eq!(
        miss(|_| {}, "Name a town\nin the north of Italy.", None).await,
        "line 1 and differs in line 2 of message 1 (user): it was `in the north of Spain.` and is `in the north of Italy.`"
    );
    assert_eq!(
        miss(|_| {}, "Name a river", Some(2)).await,
        "line 2 and differs in line 1 of message 1 (user): it was `Name a river.` and is `Name a river`"
    );
    assert_eq!(
        miss(|request| drop(request.params.insert("temperature".to_owned(), json!(1))), town, None).await,
        "line 1 and differs in the parameter `temperature`: it was `0.7` and is `1`"
    );
    assert_eq!(
        miss(|request| drop(request.params.insert("seed".to_owned(), json!(1))), town, None).await,
        "line 1 and differs in the parameter `seed`: it was `none` and is `1`"
    );
    assert_eq!(
        miss(|request| request.json_schema.as_mut().unwrap()["type"] = json!("array"), town, None).await,
        "line 1 and differs in the schema at /type: it was `\"object\"` and is `\"array\"`"
    );
    assert_eq!(
        miss(|request| request.messages.push(Message::new(Role::Assistant, "x")), town, None).await,
        "line 1 and differs in the number of messages: it was `1` and is `2`"
    );
    assert_eq!(
        miss(|_| {}, "Name a river.", Some(0)).await,
        "line 2 and differs in the number of the sample: it was `2` and is `0`"
    );
}

#[tokio::test]
async fn an_alias_that_was_recorded_gets_its_own_answers() {
    let place = Place::new();
    place.record("- {reply: red, times: 1}\n- {reply: blue}", &[("x", None), ("x", None)]).await;
    let text = std::fs::read_to_string(place.path()).unwrap();
    let mut lines = text
        .lines()
        .zip(["a", "b"])
        .map(|(line, alias)| line.replacen("\"request\"", &format!("\"alias\":\"{alias}\",\"request\""), 1) + "\n");
    std::fs::write(place.path(), lines.by_ref().collect::<String>()).unwrap();
    let model = place.open();
    assert_eq!(ask(&model.under("b"), "x", None).await, Ok("blue".to_owned()));
    assert!(ask(&model.under("b"), "x", None).await.is_err());
    assert_ne!(model.under("a").identity(), model.under("b").identity());
    // An alias that nobody recorded takes what there is.
    assert_eq!(ask(&model.under("c"), "x", None).await, Ok("red".to_owned()));
}

/// Asks a question with a watch on the text, on a clock that moves only while all sleep.
async fn timed(model: &Recorded, text: &str) -> (u128, Vec<(u128, String)>) {
    let pieces = Arc::new(Pieces(Instant::now(), Mutex::default()));
    let mut observers = Observers::default();
    observers.add(pieces.clone());
    let context = CallContext { tokens: TokenSink::new(observers, Arc::default()), ..CallContext::default() };
    model.chat(&request(text), &context).await.unwrap();
    (pieces.0.elapsed().as_millis(), pieces.1.lock().unwrap().clone())
}

#[tokio::test(start_paused = true)]
async fn replies_take_the_time_that_they_are_told_to() {
    let place = Place::new();
    place.record("- {reply: ab cd ef}", &[("x", None)]).await;
    let text = std::fs::read_to_string(place.path()).unwrap();
    let (before, _) = text.split_once(r#","latency_ms""#).unwrap();
    std::fs::write(place.path(), format!("{before},\"latency_ms\":100,\"chunks\":[[20,3],[60,3]]}}\n")).unwrap();
    let piece = |at: u128, text: &str| (at, text.to_owned());
    let whole = (100, vec![piece(20, "ab "), piece(60, "cd "), piece(100, "ef")]);
    assert_eq!(timed(&place.open().latency(1.0), "x").await, whole);
    let slow = (200, vec![piece(40, "ab "), piece(120, "cd "), piece(200, "ef")]);
    assert_eq!(timed(&place.open().latency(2.0), "x").await, slow);
    assert_eq!(timed(&place.open(), "x").await, (0, vec![piece(0, "ab cd ef")]));
}

#[tokio::test]
async fn waits_that_servers_asked_for_keep_their_meaning() {
    let place = Place::new();
    place.record("- {status: 429, reply: slow down}", &[("short", None), ("long", None)]).await;
    let text = std::fs::read_to_string(place.path()).unwrap();
    let mut lines = text.lines().zip([7_000, 3_600_000]).map(|(line, wait_ms)| {
        line.replacen("},\"latency_ms\"", &format!(",\"retry_after_ms\":{wait_ms}}},\"latency_ms\""), 1) + "\n"
    });
    std::fs::write(place.path(), lines.by_ref().collect::<String>()).unwrap();
    let waits = async |factor: f64| {
        let model = place.open().latency(factor);
        let mut waits = Vec::new();
        for text in ["short", "long"] {
            let error = model.chat(&request(text), &CallContext::default()).await.unwrap_err();
            waits.push(error.retry_after_ms.unwrap());
        }
        waits
    };
    assert_eq!(waits(0.0).await, [0, 3_600_000]);
    assert_eq!(waits(0.5).await, [3_500, 3_600_000]);
    assert_eq!(waits(100.0).await, [60_000, 3_600_000]);
}

#[tokio::test(start_paused = true)]
async fn what_was_given_up_gets_no_answer_and_is_used_last() {
    let place = Place::new();
    let model =
        Recorder::new(Scripted::parse("s", "- {match: x, reply: y, delay_ms: 60000}").unwrap(), &place.path()).unwrap();
    let dropped = tokio::time::timeout(Duration::from_secs(1), async {
        model.chat(&request("x"), &CallContext::default()).await
    });
    assert!(dropped.await.is_err());
    let context = CallContext::default();
    context.cancelled.cancel();
    assert_eq!(model.chat(&request("x"), &context).await.unwrap_err().code, "cancelled");
    place.record("- {reply: z}", &[("x", None)]).await;
    let model = place.open();
    assert_eq!((model.calls(), ask(&model, "x", None).await), (3, Ok("z".to_owned())));
    assert_eq!(model.chat(&request("x"), &context).await.unwrap_err().code, "cancelled");
    let problem = ask(&model, "x", None).await.unwrap_err();
    assert!(problem.contains("the call of line 1 was given up before one came"), "{problem}");
}
