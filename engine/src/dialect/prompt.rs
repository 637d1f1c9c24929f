//! What a model is told about drawing plans: the rules and three worked examples.
//!
//! Every sentence was measured on a model of 1.5 billion parameters; without an example it only repeats the question. What is
//! common to all questions comes first, so that servers with a prefix cache read it once.

use serde_json::{Value, json};

use super::Dialect;

/// The rules, for the system message.
pub fn planning_rules(dialect: Dialect, iterations_max: u32) -> String {
    let [before, after] = RULES;
    match dialect {
        Dialect::Graph => format!("{before}{after}"),
        Dialect::Flowchart => {
            let [repeat, end] = REPEAT_RULE;
            format!("{before}{repeat}{iterations_max}{end}{after}")
        }
    }
}

const RULES: [&str; 2] = [
    "You turn a question into a plan: a JSON list of simpler sub-questions (\"steps\"). You do not answer anything yourself. \
When all steps are answered, the question itself is asked again with all the answers, so do not repeat it as a step.\n\
- \"ask\": one fact or one calculation, short. Copy the numbers and names it needs from the question. Whenever it needs the \
answer of an earlier step, write the id of that step in braces, like {director}.\n\
- \"type\": \"text\", \"number\", \"yesno\", \"list\" or \"calc\".\n\
- \"calc\": for everything that can be calculated: \"ask\" is then a formula of numbers, ids of earlier number steps in braces, \
+ - * / ^ ( ) and sum() max() min() avg() count(). With > < = its answer is yes or no. No words in it.\n\
- \"each\": the id of an earlier \"list\" step; the step is asked once for every element, written {item}.\n\
- \"if\" or \"unless\": only when the question itself has an \"if\": the id of an earlier \"yesno\" step or of a \"calc\" with \
> < =; the step is asked only if that answer is yes (or no).\n",
    "- Never ask the same twice. Steps that do not use each other run at the same time.",
];

/// What the dialect `flowchart` adds, before and after the bound of loops.
const REPEAT_RULE: [&str; 2] = [
    "- \"repeat\": only when something is done again and again. \"ask\" is then the first value alone, \"again\" makes the next value \
out of the current one, which is written as the id of this step in braces, like {lilies}. \"until\" says when it ends: something about \
that value, with > < = for a \"calc\", or a count like \"4 times\". \"max\" is ",
    ". How often it was done is known afterwards: do not count it in another step.\n",
];

/// Three questions and their plans: a chain, or in place of it a loop that repeats at most so many times; a list with branches; a
/// word problem.
pub fn worked_examples(dialect: Dialect, iterations_max: u32) -> [(&'static str, Value); 3] {
    let [chain, branches, word_problem] = examples();
    match dialect {
        Dialect::Graph => [chain, branches, word_problem],
        Dialect::Flowchart => [branches, word_problem, loop_example(iterations_max)],
    }
}

fn loop_example(iterations_max: u32) -> (&'static str, Value) {
    (
        "A pond has 3 water lilies, and every week there are twice as many. After how many weeks are there more than 500?",
        json!({"steps": [
            {"id": "lilies", "ask": "3", "type": "calc",
             "repeat": {"again": "{lilies} * 2", "until": "{lilies} > 500", "max": iterations_max}},
        ]}),
    )
}

fn examples() -> [(&'static str, Value); 3] {
    [
        (
            "In which country was the director of the film Alien born, and what is its capital?",
            json!({"steps": [
                {"id": "director", "ask": "Who directed the film Alien?", "type": "text"},
                {"id": "country", "ask": "In which country was {director} born?", "type": "text"},
                {"id": "capital", "ask": "What is the capital of {country}?", "type": "text"},
            ]}),
        ),
        (
            "How tall are the two highest mountains of Africa? If the first is an extinct volcano, when did it last erupt, \
otherwise what is it made of?",
            json!({"steps": [
                {"id": "mountains", "ask": "List the two highest mountains of Africa, the highest first.", "type": "list"},
                {"id": "height", "ask": "How many metres high is {item}?", "type": "number", "each": "mountains"},
                {"id": "volcano", "ask": "Is the highest mountain of Africa an extinct volcano?", "type": "yesno"},
                {"id": "eruption", "ask": "When did the highest mountain of Africa last erupt?", "type": "text", "if": "volcano"},
                {"id": "rock", "ask": "What is the highest mountain of Africa made of?", "type": "text", "unless": "volcano"},
            ]}),
        ),
        (
            "A box holds 6 rows of 8 eggs. Five eggs are broken and the rest is sold for 2 euros each. How much money is that?",
            json!({"steps": [
                {"id": "eggs", "ask": "6 * 8", "type": "calc"},
                {"id": "whole", "ask": "{eggs} - 5", "type": "calc"},
                {"id": "money", "ask": "{whole} * 2", "type": "calc"},
            ]}),
        ),
    ]
}
