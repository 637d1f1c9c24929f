//! `plan`: has a model draw a graph of sub-questions.
//!
//! ```yaml
//! draft: {kind: plan, prompt: "{{ question }}", fallback: {steps: []}}
//! parts: {graph: draft}
//! ```
//!
//! The rules and three worked examples go before the author's prompt, the dialect's JSON Schema along with it. The reply is
//! parsed, repaired deterministically, completed with the step `answer` and checked. If that fails the model draws afresh, at a
//! temperature and with the problems named, at most `repair` times; then the declared `fallback` is the plan, or the node
//! fails. Its value is the plan in the dialect, `{question, steps}`.

use std::sync::Arc;

use async_trait::async_trait;
use flowrun_engine::definition::{CacheScope, FieldFormat, KindSpec};
use flowrun_engine::diagnostic::Diagnostic;
use flowrun_engine::dialect::{
    self, Repair, parse_reply, plan_schema, planning_rules, tool_rules, with_tools, worked_examples,
};
use flowrun_engine::failure::{ErrorClass, StepError};
use flowrun_engine::graph::ExpansionRules;
use flowrun_engine::node::{Input, Node, NodeContext, NodeError, Output, REPAIR_TURNS};
use flowrun_engine::retry::RetryPolicy;
use flowrun_engine::schema::Schema;
use indexmap::IndexMap;
use serde_json::{Value, json};

use crate::llm::{Conversation, identity};
use crate::model::{Models, Role};
use crate::structured::read_structured;

/// Most steps that a model is asked for, when the node does not say.
const STEPS_MAX: u64 = 12;
/// Temperature of a further draft: at 0 a small model repeats itself.
const REDRAW_TEMPERATURE: f64 = 0.7;

/// The kind `plan`.
pub struct Plan {
    models: Arc<Models>,
}

impl Plan {
    /// The kind over a table of models.
    pub fn new(models: Arc<Models>) -> Self {
        Self { models }
    }
}

/// What a draft came to.
struct Draft {
    plan: dialect::Plan,
    repairs: Vec<Repair>,
}

#[async_trait]
impl Node for Plan {
    fn spec(&self) -> KindSpec {
        KindSpec { retry: RetryPolicy::model(), calls_model: true, cache: CacheScope::Shared, ..KindSpec::leaf("plan") }
            .required(
                "prompt",
                FieldFormat::Template,
                "the question, or the request to the planner beside `with: {question}`",
            )
            .field("with", FieldFormat::ExpressionOrNames, "names that the plan's texts may mention")
            .field("system", FieldFormat::Template, "more rules for the planner")
            .field("model", FieldFormat::Text, "alias of a model; `default` if not written")
            .field("params", FieldFormat::Map, "temperature, max_tokens, …")
            .field("combine", FieldFormat::Flag, "whether the step `answer` is appended; true if not written")
            .field("repair", FieldFormat::Count, "most further drafts; 2 if not written")
            .field("fallback", FieldFormat::Literal, "the plan when none checks: `{steps: […]}`")
            .field("max_steps", FieldFormat::Count, "most steps that are asked for; 12 if not written")
            .field("dialect", FieldFormat::Text, "`graph`, or `flowchart`: with loops")
    }

    fn identity(&self, input: &Input) -> Value {
        let mut identity = identity(&self.models, input);
        if let (Value::Object(parts), Some(rules)) = (&mut identity, &input.rules) {
            parts.insert("rules".to_owned(), json!(format!("{rules:?}")));
        }
        identity
    }

    async fn run(&self, context: &NodeContext, input: Input) -> Result<Output, NodeError> {
        let request = Request::new(context, &input);
        let mut conversation = Conversation::begin(&self.models, context, &input)?;
        let (rules, tools) = (&request.rules, context.plans().tools(&request.rules));
        let schema = plan_schema(rules.dialect, request.steps_max, rules.iterations_max);
        conversation.schema = Some(with_tools(schema, &tools));
        conversation.say(Role::System, request.system.clone());
        for (question, plan) in worked_examples(rules.dialect, rules.iterations_max) {
            conversation.say(Role::User, question);
            conversation.say(Role::Assistant, plan.to_string());
        }
        conversation.say(Role::User, request.prompt.clone());
        let mut problems = String::new();
        for turn in 0..=request.turns {
            let reply = match conversation.ask().await {
                Err(failed) if failed.error.class == ErrorClass::BadReply => String::new(),
                reply => reply?,
            };
            match request.draft(&reply) {
                Ok(draft) => {
                    let outcome = match (turn, draft.repairs.is_empty()) {
                        (0, true) => "as_drawn",
                        (0, false) => "repaired",
                        _ => "model_turn",
                    };
                    return Ok(conversation.done(draft.plan.to_value(), request.report(outcome, &draft.repairs)));
                }
                Err(found) => problems = found,
            }
            if turn < request.turns {
                conversation.params.insert("temperature".to_owned(), json!(REDRAW_TEMPERATURE));
                conversation.messages.pop();
                conversation.say(Role::User, format!("{}\n\n(Avoid this in the plan: {problems})", request.prompt));
            }
        }
        match request.fallback(&input) {
            Some(Ok(draft)) => Ok(conversation.done(draft.plan.to_value(), request.report("fallback", &draft.repairs))),
            Some(Err(wrong)) => {
                let message = format!("no plan checks ({problems}), and neither does the fallback: {wrong}");
                Err(conversation.failed(StepError::new("bad_plan", ErrorClass::BadReply, message)))
            }
            None => {
                let message =
                    format!("no plan checks after {} further drafts: {problems}; declare a `fallback`", request.turns);
                Err(conversation.failed(StepError::new("bad_plan", ErrorClass::BadReply, message)))
            }
        }
    }
}

/// What is asked for and what a plan is held to.
struct Request<'a> {
    context: &'a NodeContext,
    prompt: String,
    question: String,
    system: String,
    keys: Vec<String>,
    rules: Arc<ExpansionRules>,
    combine: bool,
    turns: u64,
    steps_max: u32,
}

impl<'a> Request<'a> {
    fn new(context: &'a NodeContext, input: &Input) -> Self {
        let field = |name: &str| input.fields.get(name);
        let text = |name: &str| field(name).and_then(Value::as_str).map(str::to_owned);
        let prompt = text("prompt").unwrap_or_default();
        let with = field("with").and_then(Value::as_object);
        let question = with.and_then(|with| with.get("question")).map(|question| match question {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        let keys: Vec<String> =
            with.into_iter().flatten().map(|(key, _)| key.clone()).filter(|key| key != "question").collect();
        let rules = input.rules.clone().unwrap_or_else(|| Arc::new(ExpansionRules::new(50)));
        let mut system = planning_rules(rules.dialect, rules.iterations_max);
        if !keys.is_empty() {
            system.push_str(&format!(
                "\n- These names are known already and can be written in braces: {}.",
                keys.join(", ")
            ));
        }
        let tools = context.plans().tools(&rules);
        if !tools.is_empty() {
            system.push_str(&tool_rules(&tools));
        }
        if let Some(more) = text("system") {
            system.push_str(&format!("\n\n{more}"));
        }
        let number = |name: &str, default| field(name).and_then(Value::as_u64).unwrap_or(default);
        Self {
            context,
            question: question.unwrap_or_else(|| prompt.clone()),
            prompt,
            system,
            keys,
            rules,
            combine: field("combine").and_then(Value::as_bool).unwrap_or(true),
            turns: number("repair", u64::from(REPAIR_TURNS)),
            steps_max: number("max_steps", STEPS_MAX).clamp(1, 1_000) as u32,
        }
    }

    /// Parses, repairs, completes and checks; the error is one line.
    fn draft(&self, reply: &str) -> Result<Draft, String> {
        let value = read_structured(reply, &Schema::any())?;
        self.check(&value)
    }

    fn check(&self, value: &Value) -> Result<Draft, String> {
        let steps = parse_reply(value).map_err(|problems| lines(&problems))?;
        let (steps, repairs) = dialect::repair(steps, &self.question, &self.keys, self.rules.iterations_max);
        let mut plan = dialect::Plan { question: self.question.clone(), steps };
        if plan.steps.is_empty() && !repairs.is_empty() {
            return Err("the plan only repeats the question".to_owned());
        }
        if self.combine {
            plan.append_answer();
        }
        match self.context.plans().check(&plan.to_value(), &self.keys, &self.rules) {
            Ok(_) => Ok(Draft { plan, repairs }),
            Err(problems) => Err(lines(&problems)),
        }
    }

    fn fallback(&self, input: &Input) -> Option<Result<Draft, String>> {
        input.fields.get("fallback").map(|plan| self.check(plan))
    }

    fn report(&self, outcome: &str, repairs: &[Repair]) -> IndexMap<String, Value> {
        let repairs: Vec<String> = repairs.iter().map(ToString::to_string).collect();
        IndexMap::from([("outcome".to_owned(), json!(outcome)), ("repairs".to_owned(), json!(repairs))])
    }
}

fn lines(problems: &[Diagnostic]) -> String {
    problems.iter().take(5).map(Diagnostic::line).collect::<Vec<_>>().join("; ")
}
